"""Loaders: the small backbone that ships, and LoRAs with their contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io

from ..dreamactor_core.contract import BACKBONES, Contract, ContractError, check_lora, has_contract
from ..dreamactor_core.motion_context import CONTEXTS
from .backbone import CONTRACT_KEY, STOCK, check_alike, check_image_to_video, contract_of, weight_shapes
from .motion_context import see_driver_apart
from .sampling import keep_driver_in_sight
from .word_clip import load_word_clip

CATEGORY = "DreamActor-M2"

SMALL_MODEL, SMALL_VAE, SMALL_WORDS = "marionette_i2v.safetensors", "marionette_vae.safetensors", "marionette_words.safetensors"
SMALL_FILES = (("diffusion_models", SMALL_MODEL), ("vae", SMALL_VAE), ("text_encoders", SMALL_WORDS))


def _state_of(kind: str, file: str | None) -> tuple[float, int]:
    """What changes when a model file is written anew under its name: trainings do that. Zeros for one that is not there; never the
    same for one whose name comes from another node (None)."""
    if file is None:
        return float("nan"), 0
    path = folder_paths.get_full_path(kind, file)
    if path is None:
        return 0, 0
    about = Path(path).stat()
    return about.st_mtime_ns, about.st_size


class SmallBackboneLoader(io.ComfyNode):
    """MODEL, CLIP and VAE of the small backbone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorSmallBackboneLoader",
            display_name="DreamActor Small Backbone Loader",
            category=f"{CATEGORY}/loaders",
            description="Loads Marionette, the small image-to-video backbone that ships with the pack. No download needed.",
            search_aliases=["marionette", "dreamactor model", "small wan", "load dreamactor"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Image-to-video network; load a DreamActor LoRA onto it."),
                io.Clip.Output(display_name="clip", tooltip="Text encoder for the stock CLIP Text Encode node."),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls) -> list[tuple[float, int]]:
        return [_state_of(kind, file) for kind, file in SMALL_FILES]

    @classmethod
    def execute(cls) -> io.NodeOutput:
        model = comfy.sd.load_diffusion_model(folder_paths.get_full_path_or_raise("diffusion_models", SMALL_MODEL))
        state, metadata = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("vae", SMALL_VAE), return_metadata=True)
        vae = comfy.sd.VAE(sd=state, metadata=metadata)
        vae.throw_exception_if_invalid()
        clip = load_word_clip(folder_paths.get_full_path_or_raise("text_encoders", SMALL_WORDS))
        return io.NodeOutput(model, clip, vae)


def _load_file(name: str) -> tuple[dict[str, Any], dict[str, str] | None]:
    path = folder_paths.get_full_path_or_raise("loras", name)
    if not name.lower().endswith((".safetensors", ".sft")):
        raise ContractError(f"{name} is not a safetensors file; other formats can run code when loaded and are not read")
    try:
        return comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except Exception as error:
        raise ContractError(f"{name} cannot be read as safetensors ({error}); it is cut short or damaged, get it again") from error


def _apply(model: Any, name: str, strength: float, contract: Contract | None, expert: str | None) -> tuple[Any, Contract]:
    """Check one file against one network and patch it. `contract` stands in where the file has none."""
    check_image_to_video(model)
    tensors, metadata = _load_file(name)
    found = contract or Contract.from_metadata(metadata, name)
    if expert is not None and found.expert not in (expert, "both"):
        raise ContractError(f"{name} is the {found.expert} half of its pair and was put in the {expert} place; swap the two files")
    check_lora({k: tuple(v.shape) for k, v in tensors.items()}, found, weight_shapes(model), name)
    under, metadata_under = model.get_attachment(CONTRACT_KEY), model.get_attachment("lora_metadata")
    if metadata_under is not None and has_contract(metadata_under):  # of the stock loader
        check_alike(Contract.from_metadata(metadata_under, STOCK), found, name)
    if under is not None:
        check_alike(under, found, name)
    patched = comfy.sd.load_lora_for_models(model, None, tensors, strength, 0, lora_metadata=metadata)[0]
    patched.set_attachments(CONTRACT_KEY, found)
    context = CONTEXTS[found.motion_context]
    if under is not None:
        return patched, found  # the network is changed already
    patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, CONTRACT_KEY, _check_contracts)
    if context.cached:
        see_driver_apart(patched, context)
    else:
        keep_driver_in_sight(patched)
    return patched, found


def _check_contracts(prepare: Any, model: Any, *rest: Any, **more: Any) -> Any:
    """Before sampling: the stock loader has put nothing on the network, as far as it tells, that sees its driver in another way."""
    contract_of(model)
    return prepare(model, *rest, **more)


def _stand_in(backbone: str) -> Contract:
    return Contract(variant="pose", backbone=backbone)


class LoraLoader(io.ComfyNode):
    """Applies a DreamActor LoRA and hands its contract on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list("loras")
        return io.Schema(
            node_id="DreamActorLoraLoader",
            display_name="DreamActor LoRA Loader",
            category=f"{CATEGORY}/loaders",
            description="Loads a DreamActor-M2 LoRA, checks that it fits the model, and passes on the frame rate, lead-in and "
            "length it was trained with. Wan2.2 needs both of its files, one for each expert.",
            search_aliases=["dreamactor lora", "motion lora", "animate lora"],
            inputs=[
                io.Model.Input("model", tooltip="Image-to-video model. For Wan2.2: the high-noise expert."),
                io.Combo.Input("lora_name", options=files, tooltip="DreamActor-M2 LoRA. For Wan2.2: the _high_noise file."),
                io.Float.Input("strength", default=1.0, min=-4.0, max=4.0, step=0.01, tooltip="1 is how it was trained."),
                io.Model.Input("low_noise_model", optional=True, tooltip="Wan2.2 only: the low-noise expert."),
                io.Combo.Input(
                    "low_noise_lora_name", options=["none", *files], default="none", optional=True,
                    tooltip="Wan2.2 only: the _low_noise file.",
                ),
                io.Boolean.Input(
                    "allow_missing_contract", default=False, optional=True, advanced=True,
                    tooltip="Use a LoRA that says nothing about itself, at 16 fps with 1 s of lead-in.",
                ),
                io.Combo.Input(
                    "assume_backbone", options=list(BACKBONES), default="wan2.1-i2v-14b",
                    optional=True, advanced=True, tooltip="Only read when allow_missing_contract is on.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Model.Output(display_name="low_noise_model", tooltip="Wan2.2's low-noise expert; empty for other models."),
                io.Float.Output(display_name="fps", tooltip="Frames per second the LoRA was trained at."),
                io.Int.Output(display_name="length", tooltip="Frames of a training clip, lead-in included."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(
        cls, lora_name: str | None, low_noise_lora_name: str | None = "none", **rest: Any
    ) -> list[tuple[float, int]]:
        return [_state_of("loras", name) for name in (lora_name, low_noise_lora_name)]

    @classmethod
    def execute(
        cls,
        model: Any,
        lora_name: str,
        strength: float,
        low_noise_model: Any = None,
        low_noise_lora_name: str = "none",
        allow_missing_contract: bool = False,
        assume_backbone: str = "wan2.1-i2v-14b",
    ) -> io.NodeOutput:
        has_low = low_noise_lora_name != "none"
        if has_low != (low_noise_model is not None):
            given, missing = ("low_noise_lora_name", "low_noise_model") if has_low else ("low_noise_model", "low_noise_lora_name")
            raise ContractError(f"{given} is given without {missing}; Wan2.2 needs both, other models neither")
        stand_in = None
        if allow_missing_contract:
            stand_in = _stand_in(assume_backbone)
            for name in (lora_name, low_noise_lora_name) if has_low else (lora_name,):
                if has_contract(_load_file(name)[1]):
                    raise ContractError(f"{name} has a contract of its own; turn allow_missing_contract off")
        patched, contract = _apply(model, lora_name, strength, stand_in, "high_noise" if has_low else None)
        backbone = BACKBONES[contract.backbone]
        if not has_low and (backbone.experts or contract.expert != "both"):
            half = "one" if contract.expert == "both" else f"the {contract.expert}"
            raise ContractError(
                f"{lora_name} is only {half} half of a pair for {backbone.title}; connect low_noise_model and pick the other "
                f"file in low_noise_lora_name"
            )
        patched_low = None
        if has_low:
            patched_low, other = _apply(low_noise_model, low_noise_lora_name, strength, stand_in, "low_noise")
            for field in ("backbone", "variant", "layout", "motion_context", "fps", "lead_in"):
                a, b = getattr(contract, field), getattr(other, field)
                if a != b:
                    raise ContractError(
                        f"the two files are not a pair: {field} is {a} in {lora_name} and {b} in {low_noise_lora_name}"
                    )
        return io.NodeOutput(patched, patched_low, contract.fps, contract.frames)
