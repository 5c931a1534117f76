"""What training needs of an image-to-video network.

Shapes: B batch, C latent channels, t latent frames, h and w latent height and width of a whole composite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ModelMixin
from PIL import Image
from safetensors import SafetensorError

from dreamactor_core.motion_context import MotionContext
from training.config import Backbone as Settings
from training.errors import UserError

Context = dict[str, torch.Tensor]
"""What else the network is told of one sample, by name, without batch axis: `text` tokens (L, D), `image` tokens of some, and with
a cached motion context `motion`, the driver's latents (C, t, h', w')."""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Encoders(ABC):
    """The VAE and the encoders of text and reference image; they are needed for the cache and for pictures only.

    Attributes:
        at_once: Clips that a cache has encoded together.
        precision: What the VAE computes in.
    """

    at_once = 1
    precision = torch.float32

    @abstractmethod
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, T, H, W) in [-1, 1] to latents (B, C, t, h, w) as the network takes them, float32."""

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the network makes them to pixels (B, 3, T, H, W) in [-1, 1], float32."""

    @abstractmethod
    def text(self, prompts: Sequence[str]) -> list[Context]:
        """Text tokens of each prompt, without padding."""

    def image(self, reference: torch.Tensor) -> Context:
        """What the network is told of a reference (3, H, W) in [-1, 1] beside its place in the composite."""
        return {}


class VideoBackbone(ABC):
    """One network, its names and its conventions.

    Attributes:
        family: Key of `training.lora_file.FEED_FORWARD`.
        channels: Of latents. `stride`: pixels of a latent along height and width. `patch`: latents of a token's side.
        rename: diffusers' parameter names to the native ones.
        encoding: How its VAE or CLIP vision encodes, where that has changed: a cache of another way is refused.
    """

    encoding = ""
    family: str
    channels: int
    stride: int
    patch: int
    rename: Callable[[str], str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights and of the arithmetic."""
        return DTYPES[self.settings.dtype]

    @abstractmethod
    def load_transformer(self) -> ModelMixin:
        """The network on the CPU, frozen. Raises UserError when a file is missing or is not of this network."""

    @abstractmethod
    def load_encoders(self, device: torch.device, only_vae: bool = False) -> Encoders:
        """VAE, text encoder and image encoder. With `only_vae` the others, which are many times as large, are left out, and `text`
        and `image` are not to be called. Raises UserError when a file is missing."""

    @abstractmethod
    def weights(self) -> dict[str, list[Path]]:
        """Files of `transformer`, `vae` and `text`: their hashes say what a cache and a LoRA were made with."""

    @abstractmethod
    def predict(
        self,
        model: torch.nn.Module,
        x: torch.Tensor,
        sigma: torch.Tensor,
        given: torch.Tensor,
        known: torch.Tensor,
        context: Context,
    ) -> torch.Tensor:
        """Velocity e - x, float32 (B, C, t, h, w).

        Args:
            x: Noisy latents. sigma: (B,) in [0, 1]. given: Z of Eq. 2. known: M in latents, (B, 1, t, h, w), 1 known.
            context: Collated (`collate`).
        """

    @abstractmethod
    def collate(self, contexts: Sequence[Context]) -> Context:
        """Contexts of several samples with a batch axis, padded as the network was trained."""

    def use_context(self, model: torch.nn.Module, context: MotionContext) -> None:
        """Let a network see its driver in that way from now on. Raises UserError for one that is not made for this network."""
        if context.cached:
            raise UserError(f"motion context {context.name} is for Wan networks, expected joint for {self.settings.name}")

    def folder(self) -> Path:
        """The weights' folder. Raises UserError without one."""
        path = self.settings.path
        if path is None or not path.is_dir():
            raise UserError(
                f"backbone.path is {path or 'not given'}, expected a folder of {self.settings.name} in diffusers' layout "
                f"(model_index.json beside transformer/, vae/, text_encoder/); get it and name its place"
            )
        return path

    def part(self, name: str) -> Path:
        """A part's folder. Raises UserError when it is missing."""
        path = self.folder() / name
        if not path.is_dir():
            raise UserError(f"{self.folder()} has no folder {name}, expected one as in diffusers' layout of {self.settings.name}")
        return path

    def safetensors(self, name: str) -> list[Path]:
        """The weight files of a part. Raises UserError when there are none."""
        files = sorted(self.part(name).glob("*.safetensors"))
        if not files:
            raise UserError(f"{self.part(name)} holds no .safetensors file, expected the weights of {self.settings.name}")
        return files

    def network(self, kind: type[ModelMixin], name: str, dtype: torch.dtype) -> ModelMixin:
        """A network of diffusers, frozen, on the CPU. Raises UserError when its files are missing, damaged or another network's."""
        path = self.part(name)
        self.safetensors(name)
        with reading(path, self.settings.name):
            # weights that the files lack would be random ones
            model, found = kind.from_pretrained(path, dtype=dtype, local_files_only=True, output_loading_info=True)
        if found["missing_keys"] or found["mismatched_keys"]:
            wrong = sorted(found["missing_keys"]) or [str(key) for key in found["mismatched_keys"]]
            raise UserError(
                f"{path} lacks {len(wrong)} weights that its config.json asks for, for instance {wrong[0]}: get the folder of "
                f"{self.settings.name} again"
            )
        return model.eval().requires_grad_(False)

    def floats(self, context: Context) -> Context:
        """A context in the arithmetic's precision: a cache may keep another one."""
        return {name: value.to(self.dtype) if value.is_floating_point() else value for name, value in context.items()}


@contextmanager
def reading(path: Path, name: str) -> Iterator[None]:
    """Raises UserError for what diffusers and transformers raise over files that are missing, damaged or of another kind."""
    before = torch.get_default_dtype()
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} can't be read as a part of {name} ({type(error).__name__}: {reason}); expected a complete folder in "
            f"diffusers' layout with safetensors weights: get it again"
        ) from error
    finally:
        torch.set_default_dtype(before)  # a load that fails leaves its own behind, for every tensor made later


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """Pixels (3, H, W) in [-1, 1] as a picture, each value the nearest of 256."""
    values = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())


def pad_tokens(tokens: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """Tokens (L, D) of several samples with zeros up to one length: (B, length, D); longer ones are cut."""
    out = tokens[0].new_zeros(len(tokens), length, tokens[0].shape[-1])
    for row, one in zip(out, tokens, strict=True):
        row[: len(one)] = one[:length]
    return out


def stacked(contexts: Sequence[Context], *names: str) -> Context:
    """Those of the named tensors that the contexts have, with a batch axis."""
    return {name: torch.stack([context[name] for context in contexts]) for name in names if name in contexts[0]}


def quantized(blocks: torch.nn.Module, base: str) -> None:
    """Keep the weights of the linear layers in there in 8 bits; they are taken apart for each product, gradients pass through.

    What is taken apart is kept for the backward pass: memory is saved with gradient checkpointing only, which does it anew.
    """
    if base != "full":
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

        quantize_(blocks, Float8WeightOnlyConfig() if base == "fp8" else Int8WeightOnlyConfig(version=2))
    if base == "int8":
        for module in blocks.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(_as_autocast)


def _as_autocast(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What a linear layer takes, in the precision that autocast would have taken it in: one in int8 answers in that of its input,
    and norms on a GPU give float32, which would go on from layer to layer."""
    kind = given[0].device.type
    return (given[0].to(torch.get_autocast_dtype(kind)), *given[1:]) if torch.is_autocast_enabled(kind) else given
