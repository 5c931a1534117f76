"""What the LoRA file of a run will say of itself, and whether another one may be its start."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dreamactor_core.contract import Contract, ContractError
from dreamactor_core.motion_context import get_context
from training.backbones.base import VideoBackbone
from training.config import Config
from training.errors import UserError
from training.hashing import sha256
from training.latents import header
from training.latents.build import EMPTY
from training.latents.read import Cache
from training.lora_file import rank_of


def backbone_sha256(backbone: VideoBackbone) -> str:
    """Of the network's file; of all of its files when it has several."""
    files = backbone.weights()["transformer"]
    return sha256(files[0]) if len(files) == 1 else header.files_hash(files)


def contract_of(settings: Config, backbone: VideoBackbone, cache: Cache) -> Contract:
    """From the run's settings and its cache."""
    parent = settings.train.init_lora
    return Contract(
        variant=settings.variant, backbone=settings.backbone.name, layout=settings.layout, expert=settings.backbone.expert,
        motion_context=settings.motion_context,
        fps=settings.clip.fps, lead_in=settings.clip.spec().lead_in / settings.clip.fps, frames=settings.clip.frames,
        sizes=",".join(f"{w}x{h}" for w, h in settings.clip.sizes), skeleton=cache.header("skeleton"),
        normalised=settings.cache.augment.normalise if settings.variant == "pose" else -1.0,
        pairs=cache.header("pairs"), backbone_sha256=backbone_sha256(backbone),
        parent_sha256=sha256(parent) if parent else "", dataset_sha256=cache.fingerprint(),
    )  # fmt: skip


def check_cache(settings: Config, backbone: VideoBackbone, cache: Cache, split: str) -> None:
    """Raises UserError unless a cache is there and was made for this run."""
    if not len(cache):
        raise UserError(f"{cache.folder} has no {split} shards; {_again(settings, cache)} first")
    files = backbone.weights()
    expected = {
        "backbone": settings.backbone.name, "variant": settings.variant, "layout": settings.layout,
        "apart": header.apart(get_context(settings.motion_context)), "fps": f"{settings.clip.fps:g}",
        "lead_in": str(settings.clip.spec().lead_in), "encoding": backbone.encoding,
        "vae_sha256": header.files_hash(files["vae"]), "text_sha256": header.files_hash(files["text"]),
    }  # fmt: skip
    if settings.variant == "pose":
        expected["variants"] = str(settings.cache.variants)
        if settings.cache.variants:  # keypoints are augmented in training, by what this run says
            expected["augment"] = json.dumps(settings.cache.augment.model_dump(), sort_keys=True)
    expected["text"] = settings.cache.text
    for key, value in expected.items():
        if cache.header(key) != value:
            got, wanted = cache.header(key) or "not set", value or "not set"
            own = settings.train.cache is None
            first = "delete it" if own else "name the right one in train.cache, or leave that out"
            last = "; or name another in train.cache" if own else ""
            raise UserError(
                f"{cache.folder} is a cache with {key} {got}, expected {wanted}; {first} and run `python -m training cache` with "
                f"this file{last}"
            )
    if settings.train.drop_text:
        _check_empty(settings, cache)


def _again(settings: Config, cache: Cache) -> str:
    """What makes that cache: with this file it is made in this run's own folder only."""
    whose = "this file" if settings.train.cache is None else f"the file whose `out` is {cache.folder.parent}"
    return f"run `python -m training cache` with {whose}"


def _check_empty(settings: Config, cache: Cache) -> None:
    """Raises UserError unless the context of an empty prompt is there, by the cache's own text encoder."""
    path, again = cache.folder / EMPTY, f"{_again(settings, cache)}, which makes it"
    if not cache.empty:
        raise UserError(f"there is no {path}, expected it for train.drop_text; {again}, or set train.drop_text: 0")
    # one of before it said what it is from has nothing to compare
    for key, got in cache.empty_metadata.items():
        if got != cache.metadata.get(key):
            raise UserError(f"{path} is of {key.removeprefix('cache.')} {got}, expected {cache.metadata.get(key)}; {again}")


def check_parent(path: Path, own: Contract, rank: int) -> None:
    """Raises UserError for a LoRA that this run can't begin with: of another network, layout, expert or rank, or rgb before
    pose."""
    try:
        with safe_open(path, "pt") as file:
            parent = Contract.from_metadata(file.metadata(), path.name)
        found = rank_of(path)
    except (OSError, SafetensorError, ContractError, ValueError) as error:
        raise UserError(f"train.init_lora: {path} can't be the start of this run ({error})") from error
    if own.variant == "pose" and parent.variant != "pose":
        raise UserError(f"{path} is a LoRA of variant {parent.variant}, expected pose: a pose LoRA comes before the rgb LoRA")
    if found != rank:
        raise UserError(f"{path} is of rank {found}, expected train.rank, {rank}: set it to {found}, or begin with another LoRA")
    for key in ("backbone", "layout", "expert", "backbone_sha256"):
        got, expected = getattr(parent, key), getattr(own, key)
        if got != expected:
            raise UserError(f"{path} was trained with {key} {got or 'not stated'}, expected {expected}; train its like on this one")
