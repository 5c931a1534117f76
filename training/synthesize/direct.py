"""The teacher that we train ourselves: the backbone with a pose LoRA, given what the nodes give it.

Shapes: B batch, T frames, H and W height and width of one half, N driven frames (T less the lead-in).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from dreamactor_core.augment import normalise
from dreamactor_core.clips import ClipSpec, trim_lead_in
from dreamactor_core.conditions import build_condition
from dreamactor_core.contract import Contract, ContractError, check_lora
from dreamactor_core.layout import get_layout
from dreamactor_core.skeleton import draw_skeleton
from training.backbones import get
from training.backbones.base import Context, VideoBackbone
from training.config import Config
from training.errors import UserError
from training.hashing import sha256
from training.lora_file import add_lora, load_lora, rank_of
from training.sampling import sample
from training.synthesize import inputs
from training.synthesize.plan import Needs, Package, Teaching, Unit
from training.train.contracts import backbone_sha256

VERSION = 2
"""Of the way in which results are made. A change of it makes every unit anew."""

_HASHED = 2**30


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, "pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict


def read_contract(path: Path) -> Contract:
    """What a LoRA file says of itself. Raises UserError."""
    if not path.is_file():
        raise UserError(f"synthesize.lora is {path}, which is not there, expected the pose LoRA (`train`, then `export`)")
    try:
        with safe_open(path, "pt") as file:
            return Contract.from_metadata(file.metadata(), path.name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"synthesize.lora {path} can't be read as safetensors ({error}); export it again") from error
    except ContractError as error:
        raise UserError(str(error)) from error


def _identity(path: Path) -> str:
    """Of a file of weights: its hash, or name and size where that would take minutes at each start."""
    size = path.stat().st_size
    return sha256(path) if size < _HASHED else f"{path.name} {size}"


def check(config: Config) -> Teaching:
    """All that can be known to be wrong before a network is loaded. Raises UserError."""
    settings = config.synthesize
    if settings.lora is None:
        raise UserError("synthesize.lora is not given, expected the pose LoRA of this backbone (or teacher: comfyui)")
    if config.backbone.expert != "both":
        raise UserError(
            f"backbone.expert is {config.backbone.expert}: the direct teacher runs one network, and {config.backbone.name} needs "
            f"both experts; use teacher: comfyui with workflows/api/wan2.2_i2v_a14b_pose.json"
        )
    contract, name = read_contract(settings.lora), settings.lora.name
    if contract.variant != "pose":
        raise UserError(f"{name} is a LoRA of variant {contract.variant}, expected pose: skeletons are to drive it (Eq. 3)")
    if contract.backbone != config.backbone.name:
        raise UserError(f"{name} is for {contract.backbone}, expected one for backbone.name, {config.backbone.name}")
    clip = config.clip.spec()
    lead_in = ClipSpec.from_seconds(config.clip.frames, contract.lead_in, contract.fps).lead_in
    if abs(contract.fps - clip.fps) > 1e-3 or lead_in != clip.lead_in:
        raise UserError(
            f"{name} was trained at {contract.fps:g} fps with a lead-in of {lead_in} frames, this run's clips have {clip.fps:g} "
            f"fps and {clip.lead_in} frames; set clip.fps and clip.lead_in to the LoRA's"
        )
    backbone = get(config.backbone)
    files = backbone.weights()["transformer"]
    if not files:
        raise UserError(f"{config.backbone.path} has no safetensors file of the transformer; get {config.backbone.name} again")
    # a file as it ships names its layers natively already, which renaming leaves as they are
    model = {backbone.rename(key): shape for path in files for key, shape in _shapes(path).items()}
    try:
        check_lora(_shapes(settings.lora), contract, model, name)
    except ContractError as error:
        raise UserError(str(error)) from error
    if contract.backbone_sha256 and contract.backbone_sha256 != (got := backbone_sha256(backbone)):
        raise UserError(
            f"{name} was trained on weights of sha256 {contract.backbone_sha256[:12]}…, expected those of {files[0].parent} "
            f"({len(files)} files, {got[:12]}…): train it on these, or give the backbone that it was trained on"
        )
    about = {
        "version": VERSION, "teacher": "direct", "lora": sha256(settings.lora), "backbone": config.backbone.name,
        "base": config.backbone.base, "dtype": config.backbone.dtype,
        "weights": {part: [_identity(path) for path in paths] for part, paths in backbone.weights().items()},
        "steps": settings.steps, "sampler": settings.sampler, "shift": settings.shift, "cfg": settings.cfg,
        "retarget": settings.retarget,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return Teaching(digest, Needs(True, False, settings.retarget), backbone.stride * backbone.patch)


@dataclass(frozen=True, eq=False)
class Job:
    """What one result is made from: `reference` uint8 (H, W, 3), `skeleton` uint8 (N, H, W, 3), prompt, seed of the noise."""

    reference: np.ndarray
    skeleton: np.ndarray
    prompt: str
    seed: int


class DirectTeacher:
    """M_pose of Eq. 3. Loads the networks; raises UserError when they are missing or the LoRA does not fit."""

    def __init__(self, config: Config, device: torch.device) -> None:
        if config.synthesize.lora is None:
            raise UserError("synthesize.lora is not given")
        self.settings, self.device = config.synthesize, device
        self.contract = read_contract(config.synthesize.lora)
        self.layout = get_layout(self.contract.layout, self.contract.motion_context)
        self.backbone: VideoBackbone = get(config.backbone)
        model = self.backbone.load_transformer()
        self.backbone.use_context(model, self.layout.context)
        add_lora(model, rank_of(config.synthesize.lora), self.backbone.family)
        load_lora(model, config.synthesize.lora, self.backbone.rename)
        if model.dtype == torch.float32 and config.backbone.base == "full":
            # a quarter less time on small networks; halves and 8 bits would round the LoRA away
            model.fuse_lora()
            model.unload_lora()
        self.model = model.eval().to(device)
        self.encoders = self.backbone.load_encoders(device)

    def spec(self, frames: int) -> ClipSpec:
        """Of a target of that many frames, lead-in included."""
        return ClipSpec.from_seconds(frames, self.contract.lead_in, self.contract.fps)

    def job(self, unit: Unit) -> Job:
        """Read a unit's files. Raises UserError, MediaError, PoseFormatError or ValueError with what is wrong with them."""
        inputs.source_frames(unit.source)  # it is the target of the pair: a broken one is of no use, however driven
        frames, height, width = unit.shape
        poses = inputs.driving_poses(unit.source, unit.reference, self.spec(frames), self.settings.retarget)
        if "hands" not in self.contract.skeleton:
            poses = poses.without("left_hand", "right_hand")
        if "face" not in self.contract.skeleton:
            poses = poses.without("face")
        if self.contract.mostly_normalised:
            poses = normalise(poses, height, width)
        skeleton = draw_skeleton(poses, height, width)
        if not skeleton.any():
            raise UserError(f"nothing of the skeleton of {unit.source.id} on {unit.reference.id} is within the picture")
        return Job(inputs.character(unit.reference, height, width), skeleton, unit.prompt, unit.seed)

    @torch.no_grad()
    def generate(self, jobs: Sequence[Job]) -> np.ndarray:
        """V_o of each job, all of one size: uint8 (B, N, H, W, 3), the lead-in cut.

        Noise is each job's own, drawn on the CPU as a stock sampler on a CPU draws it. Raises FloatingPointError for values that
        are not finite.
        """
        reference = torch.from_numpy(np.stack([job.reference for job in jobs])).permute(0, 3, 1, 2).float() / 127.5 - 1
        skeleton = torch.from_numpy(np.stack([job.skeleton for job in jobs])).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        spec = self.spec(skeleton.shape[2] + self.spec(self.contract.frames).lead_in)
        condition = build_condition(self.layout, reference, skeleton, spec, self.encoders.encode, self.encoders.precision)
        pictures = [self.encoders.image(picture) for picture in reference]
        context = self._context([job.prompt for job in jobs], pictures)
        if condition.motion is not None:
            context["motion"] = condition.motion
        empty = self._context([""] * len(jobs), pictures) if self.settings.cfg != 1 else None
        latents = sample(
            self.backbone, self.model, self.layout, condition.latents, context, self.settings.steps, self.settings.shift,
            [job.seed for job in jobs], empty, self.settings.cfg, self.settings.sampler,
        )  # fmt: skip
        video = trim_lead_in(self.layout.crop(self.encoders.decode(latents)), spec)
        if not torch.isfinite(video).all():
            raise FloatingPointError("the network made values that are not finite; use backbone.dtype: bfloat16, or another LoRA")
        return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()

    def _context(self, prompts: Sequence[str], pictures: Sequence[Context]) -> Context:
        told = [{**text, **picture} for text, picture in zip(self.encoders.text(prompts), pictures, strict=True)]
        return self.backbone.collate(told)

    def make(self, package: Package) -> Iterator[tuple[Unit, np.ndarray | str]]:
        """The frames of each wanted unit, or why there are none.

        A unit whose files cannot be read leaves its place to another's copy: the batch stays as large as the plan has it.
        """
        jobs: dict[str, Job] = {}
        for unit in package.units:
            try:
                jobs[unit.id] = self.job(unit)
            except (ValueError, OSError) as error:
                if unit.id in package.wanted:
                    yield unit, str(error)
        if not package.wanted & jobs.keys():
            return
        filler = next(iter(jobs.values()))
        made = self.generate([jobs.get(unit.id, filler) for unit in package.units])
        for unit, frames in zip(package.units, made, strict=True):
            if unit.id in package.wanted and unit.id in jobs:
                yield unit, frames
