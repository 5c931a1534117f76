"""Nodes for the tests only: odd inputs that no stock node makes, stand-ins for huge encoders, and a look at tensors."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.text_encoders import qwen3vl
from safetensors import safe_open
from safetensors.torch import save_file

CATEGORY = "toy"


def moving_pattern(frames: int, height: int, width: int, channels: int, seed: int) -> torch.Tensor:
    """IMAGE (frames, height, width, channels) in [0, 1]: smooth waves that travel, other ones for every seed."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(0.4 * t + 0.13 * (seed + 1) * x + 0.2 * (c + 1) * y + c) for c in range(channels)]
    return torch.stack(waves, -1).float() * 0.5 + 0.5


class ToyImages:
    """IMAGE of any shape, with NaN if asked for."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sizes = {name: ("INT", {"default": 32, "min": 0}) for name in ("frames", "height", "width", "channels", "seed")}
        return {"required": sizes | {"nan": ("BOOLEAN", {"default": False})}}

    def make(self, frames: int, height: int, width: int, channels: int, seed: int, nan: bool) -> tuple[torch.Tensor]:
        images = moving_pattern(frames, height, width, channels, seed)
        if nan:
            images[frames // 2, -1, -1, -1] = torch.nan
        return (images,)


class ToyPoses:
    """Whatever the JSON text says, as POSE_KEYPOINT."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("POSE_KEYPOINT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING", {"multiline": True})}}

    def make(self, text: str) -> tuple[Any]:
        return (json.loads(text),)


class ToyFloat:
    """A FLOAT that need not be a number, and that no widget's range holds back."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("FLOAT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING", {"default": "nan"})}}

    def make(self, text: str) -> tuple[float]:
        return (float(text),)


class ToyConditioning:
    """Text embeddings of any width, as CLIP Text Encode gives them."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {name: ("INT", {"default": 1, "min": 0}) for name in ("tokens", "dim", "seed")}}

    def make(self, tokens: int, dim: int, seed: int) -> tuple[list]:
        return ([[torch.randn(1, tokens, dim, generator=torch.Generator().manual_seed(seed)), {"pooled_output": None}]],)


class ToyClipVision:
    """What CLIP Vision Encode gives, of any size."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("CLIP_VISION_OUTPUT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {name: ("INT", {"default": 1, "min": 1}) for name in ("tokens", "dim")}}

    def make(self, tokens: int, dim: int) -> tuple[SimpleNamespace]:
        hidden = torch.randn(1, tokens, dim, generator=torch.Generator().manual_seed(0))
        return (SimpleNamespace(penultimate_hidden_states=hidden, last_hidden_state=hidden),)


def load_hunyuan_vae(path: str) -> comfy.sd.VAE:
    """A HunyuanVideo 1.5 VAE as the host makes it, but as wide as the file says; in the host the widths are fixed."""
    state = comfy.utils.load_torch_file(path)
    widths = [state[f"encoder.down.{i}.block.0.conv1.conv.weight"].shape[0] for i in range(5)]
    original = comfy.sd.AutoencodingEngine

    def narrow(**configs: Any) -> torch.nn.Module:
        for name in ("encoder_config", "decoder_config"):
            configs[name]["params"]["block_out_channels"] = widths
        return original(**configs)

    comfy.sd.AutoencodingEngine = narrow
    try:
        return comfy.sd.VAE(sd=state)
    finally:
        comfy.sd.AutoencodingEngine = original


class ToyHunyuanVAELoader:
    """See load_hunyuan_vae."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "load", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae_name": (folder_paths.get_filename_list("vae"),)}}

    def load(self, vae_name: str) -> tuple[comfy.sd.VAE]:
        return (load_hunyuan_vae(folder_paths.get_full_path_or_raise("vae", vae_name)),)


def load_language_model(path: str) -> comfy.sd.CLIP:
    """A Qwen3-VL as the host makes it, but of the sizes that the file's metadata name; in the host they are fixed."""
    with safe_open(path, "pt") as file:
        language, vision = (json.loads(file.metadata()[part]) for part in ("language", "vision"))
    name = "qwen3vl_8b"
    original = qwen3vl.QWEN3VL_VISION[name]
    qwen3vl.QWEN3VL_VISION[name] = vision
    try:
        return comfy.sd.load_clip([path], model_options={f"{name}_model_config": language})
    finally:
        qwen3vl.QWEN3VL_VISION[name] = original


class ToyLanguageModelLoader:
    """See load_language_model."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "load", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip_name": (folder_paths.get_filename_list("text_encoders"),)}}

    def load(self, clip_name: str) -> tuple[comfy.sd.CLIP]:
        return (load_language_model(folder_paths.get_full_path_or_raise("text_encoders", clip_name)),)


class ToyInstalled:
    """Which of some packages (comma-separated) this process could import, and which it has imported."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "look", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"names": ("STRING", {"default": ""})}}

    @classmethod
    def IS_CHANGED(cls, names: str) -> float:
        return float("nan")  # never the same: modules are imported as time goes by

    def look(self, names: str) -> dict[str, Any]:
        wanted = names.split(",")
        found = [name for name in wanted if importlib.util.find_spec(name) is not None]
        return {"ui": {"installed": found, "imported": [name for name in wanted if name in sys.modules]}}


class ToyTalker:
    """A CLIP that can generate: it answers always the same, if it is shown as many pictures as it expects."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "make", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"answer": ("STRING", {"default": ""}), "pictures": ("INT", {"default": 0, "min": 0})}}

    def make(self, answer: str, pictures: int) -> tuple[Any]:
        return (_Talker(answer, pictures),)


class _Talker:
    def __init__(self, answer: str, pictures: int) -> None:
        self._answer, self._pictures = answer, pictures

    def tokenize(self, text: str, image: torch.Tensor | None = None, **_: Any) -> int:
        shown = 0 if image is None else image.shape[0]
        if not text or shown != self._pictures:
            raise ValueError(f"got {shown} pictures and {len(text)} letters, expected {self._pictures} pictures and a prompt")
        return shown

    def generate(self, tokens: int, **_: Any) -> list[int]:
        return [tokens]

    def decode(self, ids: list[int], **_: Any) -> str:
        return self._answer


class _Any(str):
    def __ne__(self, other: object) -> bool:
        return False


class ToySave:
    """The tensor of an IMAGE, MASK, LATENT, AUDIO or CONDITIONING, bit for bit, in output/NAME.safetensors."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = CATEGORY, "save", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (_Any("*"),), "name": ("STRING", {"default": "value"})}}

    def save(self, value: Any, name: str) -> dict[str, Any]:
        metadata = None
        if isinstance(value, dict):
            metadata = {"sample_rate": str(value["sample_rate"])} if "sample_rate" in value else None
            value = value["samples"] if "samples" in value else value["waveform"]
        elif isinstance(value, list):
            value = value[0][0]
        file = f"{name}.safetensors"
        path = Path(folder_paths.get_output_directory()) / file
        save_file({"value": value.detach().cpu().contiguous()}, path, metadata)
        return {"ui": {"files": [{"filename": file, "subfolder": "", "type": "output"}]}}


NODES = (
    ToyImages, ToyPoses, ToyFloat, ToyConditioning, ToyClipVision, ToyHunyuanVAELoader, ToyLanguageModelLoader, ToyInstalled,
    ToyTalker, ToySave,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in NODES}
