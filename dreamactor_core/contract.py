"""What a DreamActor-M2 LoRA file says about itself, and whether it fits a backbone.

A file holds `diffusion_model.<native module>.lora_A.weight`, `.lora_B.weight` and `.alpha`, and string metadata under
`dreamactor_m2.*`. Whoever loads the file reads the clip's rate, lead-in and layout from there; nobody types them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from .clips import MAX_FPS, MIN_FPS
from .layout import LAYOUTS
from .motion_context import CONTEXTS

PREFIX = "dreamactor_m2."
SCHEMA = "1"


class ContractError(ValueError):
    """A LoRA that is not what it must be, or does not fit."""


@dataclass(frozen=True)
class Backbone:
    """An image-to-video network that the method runs on. Data only: a new backbone is one more row of BACKBONES.

    Attributes:
        title: Name for people.
        feed_forward: Matches the native module names of the video branch's feed-forward layers, which a LoRA may touch.
        experts: Names of its networks, when several share the denoising.
        image_embedding: Whether it has a branch for CLIP vision, None where that says nothing. It tells apart networks whose
            LoRAs would fit by size.
        cached_contexts: Whether cached motion contexts are made for it: text must not be in the same attention as video.
        blank_latents: Whether it was trained with zeros in the unknown places of the latents that it is shown, and not with the
            latents of a blank picture.
    """

    title: str
    feed_forward: str
    experts: tuple[str, ...] = ()
    image_embedding: bool | None = None
    cached_contexts: bool = True
    blank_latents: bool = False


_WAN = r"blocks\.\d+\.ffn\.[02]"

BACKBONES: dict[str, Backbone] = {
    "marionette": Backbone("Marionette (small, shipped)", _WAN),
    "wan2.1-i2v-14b": Backbone("Wan2.1-I2V-14B", _WAN, image_embedding=True),
    "wan2.2-i2v-a14b": Backbone("Wan2.2-I2V-A14B", _WAN, ("high_noise", "low_noise"), image_embedding=False),
    # anchored at the video branch: the token refiner and the text branch have feed-forward layers too
    "hunyuanvideo-1.5-i2v": Backbone(
        "HunyuanVideo-1.5 I2V", r"double_blocks\.\d+\.img_mlp\.[02]", cached_contexts=False, blank_latents=True
    ),
}

_CHOICES: dict[str, tuple[str, ...]] = {
    "schema": (SCHEMA,),
    "variant": ("pose", "rgb"),
    "layout": tuple(LAYOUTS),
    "motion_context": tuple(CONTEXTS),
    "expert": ("both", "high_noise", "low_noise"),
    "backbone": tuple(BACKBONES),
}


@dataclass(frozen=True)
class Contract:
    """The metadata of a LoRA file, without the prefix. Every value is written as a string.

    Attributes:
        variant: `pose` (driven by a skeleton video) or `rgb` (driven by the raw video).
        backbone: Key of BACKBONES.
        layout: Key of LAYOUTS.
        motion_context: Key of CONTEXTS, how the driver's tokens take part; `joint` is the paper's.
        expert: Which of a backbone's networks the file is for.
        fps: Frames per second it was trained at.
        lead_in: Seconds of blank driver in front.
        frames: Frames of a training clip, lead-in included.
        sizes: Training sizes of one half, "WxH", comma-separated.
        skeleton: Skeleton convention (`openpose18`, `openpose18+face+hands`), empty for rgb.
        normalised: Share of the training skeletons that were normalised by their box, 0 to 1; negative when unknown.
        pairs: Where training pairs came from: `self`, or of `ground_truth`, `synthetic`, `filmed` and `unknown` those that there
            were, comma-separated; empty when nothing is known.
        prompt_language: Language of the training prompts.
        backbone_sha256, parent_sha256, dataset_sha256: Of the files it was trained from; empty when unknown.
    """

    variant: str
    backbone: str
    layout: str = "spatial"
    motion_context: str = "joint"
    expert: str = "both"
    fps: float = 16.0
    lead_in: float = 1.0
    frames: int = 81
    sizes: str = ""
    skeleton: str = ""
    normalised: float = -1.0
    pairs: str = ""
    prompt_language: str = "en"
    backbone_sha256: str = ""
    parent_sha256: str = ""
    dataset_sha256: str = ""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ContractError(
                    f"the LoRA's {PREFIX}{name} is {value!r}, expected one of {', '.join(allowed)}; "
                    f"it was made for another version of this pack: update the pack, or pick another LoRA"
                )
        context = CONTEXTS[self.motion_context]
        if context.cached and (self.layout != "spatial" or not BACKBONES[self.backbone].cached_contexts):
            raise ContractError(
                f"the LoRA's contract is impossible: motion context {self.motion_context} with layout {self.layout} on "
                f"{BACKBONES[self.backbone].title}, expected the spatial layout on a Wan network; re-export it"
            )
        if not MIN_FPS <= self.fps <= MAX_FPS or not 0 <= self.lead_in <= 60 or self.frames < 5 or (self.frames - 1) % 4:
            raise ContractError(
                f"the LoRA's contract is impossible: fps {self.fps:g}, lead-in {self.lead_in:g} s, {self.frames} frames; "
                f"expected {MIN_FPS:g} to {MAX_FPS:g} fps, a lead-in of 0 to 60 s and 4n+1 frames; re-export it"
            )

    @property
    def mostly_normalised(self) -> bool:
        """Whether skeletons are to be centred by their box, standing on the lower margin: what most of training looked like."""
        return self.normalised > 0.5

    def to_metadata(self) -> dict[str, str]:
        """Safetensors metadata, with the ModelSpec fields that model managers show."""
        own = {PREFIX + name: str(value) for name, value in asdict(self).items()}
        return own | {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{self.backbone}/lora",
            "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
            "modelspec.title": f"DreamActor-M2 {self.variant} for {BACKBONES[self.backbone].title}",
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, file: str = "the LoRA") -> Contract:
        """Read a file's metadata.

        Raises:
            ContractError: no contract in there, a field missing, or a value that is not known.
        """
        own = {k.removeprefix(PREFIX): v for k, v in (metadata or {}).items() if k.startswith(PREFIX)}
        if not own:
            raise ContractError(
                f"{file} carries no {PREFIX}* metadata, so it was not trained for this method (or a tool dropped the "
                f"metadata when it re-saved the file). Use a LoRA made by `training`, or turn on "
                f"allow_missing_contract to use it at 16 fps with 1 s of lead-in"
            )
        missing = [name for name in ("schema", "variant", "backbone", "fps", "lead_in", "frames") if name not in own]
        if missing:
            raise ContractError(f"{file} lacks the metadata {', '.join(PREFIX + name for name in missing)}; re-export it")
        kinds = {"float": float, "int": int, "str": str}
        values = {}
        for field in fields(cls):
            if field.name in own:
                try:
                    values[field.name] = kinds[str(field.type)](own[field.name])
                except ValueError as error:
                    raise ContractError(f"{file}: {PREFIX}{field.name} is {own[field.name]!r}, expected {field.type}") from error
        try:
            return cls(**values)
        except ContractError as error:
            raise ContractError(f"{file}: {error}") from error


def has_contract(metadata: Mapping[str, str] | None) -> bool:
    """Whether a file's metadata holds any of a contract, be it complete or not."""
    return any(key.startswith(PREFIX) for key in metadata or {})


_KEY = re.compile(r"^diffusion_model\.(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|alpha)$")


def native_modules(keys: Iterable[str]) -> set[str]:
    """Native names of the modules that a LoRA file touches. Raises ContractError for keys of another naming."""
    modules, strange = set(), []
    for key in keys:
        match = _KEY.match(key)
        if match:
            modules.add(match["module"])
        else:
            strange.append(key)
    if strange:
        raise ContractError(
            f"{len(strange)} keys are not named diffusion_model.<module>.lora_A/lora_B/alpha, for instance {strange[0]!r}; "
            f"diffusers and peft names must be exported to native ones first"
        )
    return modules


def check_lora(
    shapes: Mapping[str, tuple[int, ...]], contract: Contract, model_shapes: Mapping[str, tuple[int, ...]], file: str = "the LoRA"
) -> None:
    """Check a LoRA against the network it is to be applied to.

    Args:
        shapes: Tensor shapes of the file by key.
        model_shapes: Weight shapes of the network by native name, as in "blocks.0.ffn.0.weight".

    Raises:
        ContractError: layers of another architecture or size, layers outside the video branch's feed-forward ones,
            feed-forward layers left out, a LoRA half missing.
    """
    backbone = BACKBONES[contract.backbone]
    modules = native_modules(shapes)
    pattern = re.compile(backbone.feed_forward)
    wanted = {name.removesuffix(".weight") for name in model_shapes if pattern.fullmatch(name.removesuffix(".weight"))}
    if not wanted:
        raise ContractError(
            f"{file} is for {backbone.title}, but the model has none of its feed-forward layers ({backbone.feed_forward}); "
            f"load a {backbone.title} model, or a LoRA that was trained for this one"
        )
    has = any(name.startswith("img_emb.") for name in model_shapes)
    if backbone.image_embedding is not None and has != backbone.image_embedding:
        raise ContractError(
            f"{file} is for {backbone.title}, which has {'an' if backbone.image_embedding else 'no'} image embedding (img_emb.*), "
            f"and the model has {'one' if has else 'none'}: it looks like Wan2.{1 if has else 2}; load a {backbone.title} model, "
            f"or a LoRA that was trained for this one"
        )
    outside = sorted(m for m in modules if not pattern.fullmatch(m))
    if outside:
        raise ContractError(f"{file} touches {outside[0]!r}, outside the video branch's feed-forward layers; re-export it")
    if modules != wanted:
        raise ContractError(
            f"{file} covers {len(modules)} feed-forward layers and the model has {len(wanted)}; "
            f"it was trained on a {backbone.title} of another depth"
        )
    for module in sorted(modules):
        key = f"diffusion_model.{module}"
        try:
            down, up = shapes[f"{key}.lora_A.weight"], shapes[f"{key}.lora_B.weight"]
        except KeyError as error:
            raise ContractError(f"{file}: {error.args[0]} is missing; the file is incomplete, get it again") from error
        if f"{key}.alpha" not in shapes:
            raise ContractError(f"{file}: {key}.alpha is missing, so its scale is unknown; export it again")
        rows, columns = model_shapes[f"{module}.weight"][:2]
        if len(down) != 2 or len(up) != 2 or (up[0], down[1]) != (rows, columns) or down[0] != up[1]:
            raise ContractError(
                f"{file}: {module} is {up} x {down}, expected ({rows}, rank) x (rank, {columns}); "
                f"it was trained on a {backbone.title} of another width, or its two halves differ in rank"
            )
