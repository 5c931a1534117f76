"""What a shard says of itself, and what a reader asks of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from safetensors import safe_open

from dreamactor_core.motion_context import MotionContext
from training.errors import UserError
from training.hashing import sha256

VERSION = "1"
"""Of the layout of shards; one more whenever their tensors mean something else."""

OPTIONAL = ("apart", "encoding")
"""Fields that are left out where they are empty, as in shards of before there were these."""

_MEANT = {"manifest_sha256": " (which samples these are, the sizes of their files, and which are held out)"}


@cache
def _file_hash(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def files_hash(paths: Iterable[Path]) -> str:
    """One digest of several weight files."""
    digest = hashlib.sha256()
    for path in paths:
        found = path.stat()
        digest.update(_file_hash(path, found.st_size, found.st_mtime_ns).encode())
    return digest.hexdigest()


def digest(value: object) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def kinds(pairs: Iterable[str]) -> str:
    """What is said of where the drivers of some samples are from: each kind once, those of which nothing is said as `unknown`;
    empty where it is said of none."""
    found = set(pairs)
    return ",".join(sorted(kind or "unknown" for kind in found)) if any(found) else ""


@dataclass(frozen=True)
class Header:
    """Of one cache; every shard repeats it.

    Attributes:
        backbone: Key of the contract's BACKBONES. vae_sha256, text_sha256: Of the encoders' files.
        variant, layout: As in the contract. fps, lead_in: Of the clips, lead-in in frames.
        text: How prompts were made, `fused` or `concatenated`. variants: Augmented versions of each skeleton; 0: keypoints instead.
        augment: The augmentation's settings, as JSON; empty for rgb.
        skeleton: The convention of the skeletons; empty for rgb.
        pairs: Where drivers are from: `self`, or as `kinds` has it.
        manifest_sha256: Of the samples' lines and the sizes of their files.
        apart: The scale of the driver's own latents, for cached motion contexts; empty: it is in the composite.
        encoding: What the backbone says of how its encoders encode, where their files do not tell; empty: nothing.
    """

    backbone: str
    vae_sha256: str
    text_sha256: str
    variant: str
    layout: str
    fps: str
    lead_in: str
    text: str
    variants: str
    augment: str
    skeleton: str
    pairs: str
    manifest_sha256: str
    apart: str = ""
    encoding: str = ""
    version: str = VERSION

    def metadata(self) -> dict[str, str]:
        made = {f"cache.{key}": value for key, value in asdict(self).items()}
        return {key: value for key, value in made.items() if value or key.removeprefix("cache.") not in OPTIONAL}


def apart(context: MotionContext) -> str:
    """What a cache for that motion context says of its driver."""
    return str(context.scale) if context.cached else ""


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a shard. Raises UserError for a file that is broken."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # safetensors has no common class for its errors
        raise UserError(f"{path} can't be read ({error}); delete it and run `python -m training cache` again") from error


def check(found: Mapping[str, str], expected: Header, where: Path) -> None:
    """Raises UserError unless a shard is of this cache."""
    wanted = expected.metadata()
    for key in [*wanted, *(key for key in found if key.startswith("cache.") and key not in wanted)]:
        if found.get(key) != wanted.get(key):
            field = key.removeprefix("cache.")
            got, asked = found.get(key, "not stated"), wanted.get(key, "not stated")
            raise UserError(
                f"{where}: {field} is {got}, expected {asked}{_MEANT.get(field, '')}; the cache was made with other settings, "
                f"clips or weights: delete {where.parent.parent} and make it again, or name another `out`"
            )


def of_whole(counts: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """What a shard says of the cache that it is a part of: shards and samples of each split."""
    return {"whole": json.dumps(counts)}


def check_whole(found: Mapping[str, str], split: str, shards: int, samples: int, folder: Path) -> None:
    """Raises UserError unless a split has as many shards and samples as the shard `found` says that it should have.

    A shard of before they were counted says nothing, and nothing is asked of it.
    """
    expected = tuple(json.loads(found.get("whole", "{}")).get(split, (shards, samples)))
    if (shards, samples) != expected:
        raise UserError(
            f"{folder} has {shards} shards with {samples} samples of {split}, expected {expected[0]} with {expected[1]}: it is not "
            f"finished; run `python -m training cache` again with the file that it was begun with"
        )


def check_ids(found: Mapping[str, str], expected: Sequence[str], where: Path) -> None:
    """Raises UserError unless a shard holds these samples: it does not when shards were of another size."""
    ids = json.loads(found.get("ids", "[]"))
    if ids != list(expected):
        raise UserError(
            f"{where} holds {len(ids)} samples, expected {len(expected)}, from {expected[0]} to {expected[-1]}; it was made with "
            f"another cache.shard: set that again, or delete {where.parent.parent} and make it again"
        )


def of_empty(backbone: str, text_sha256: str) -> dict[str, str]:
    """What the context of an empty prompt says of itself."""
    return {"cache.backbone": backbone, "cache.text_sha256": text_sha256}
