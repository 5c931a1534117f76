"""A small run of each verb that is long in earnest and goes on where it stopped, and what two of its runs must agree in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml
from drawn_clips import PLAIN, write_run
from synthesis import draw, values
from synthetic_pairs import write_config, write_pairs

MADE = {
    "cache": ("cache/**/*.safetensors",),
    "train": ("train/*.safetensors",),
    "score": ("run/scores/manifest.jsonl",),
    "synthesize": ("synthetic/manifest.jsonl", "synthetic/clips/**/*", "synthetic/units/**/*", "synthetic/references/*"),
}
"""Patterns below a run's folder, by verb: the files that are the same whatever came between."""
PAIRS = 5
"""Of `score` and `synthesize`."""
_TRAIN = {
    "steps": 4, "batch": 2, "rank": 4, "every": 1, "compile": False, "sample_sheets": 0, "validate_on": 2, "ema": 0.9,
}  # fmt: skip


def cache_run(clips: Path, out: Path) -> Path:
    """The file of a run on a manifest of clips, in two processes."""
    cache = {"manifest": str(clips), "shard": 1, "validation_share": 0.34, "augment": PLAIN, "workers": 2}
    return write_run(out / "run.yaml", out, cache=cache)


def train_run(cached: Path, out: Path) -> Path:
    """The file of a run on that cache."""
    return write_run(out / "run.yaml", out, cache={"augment": PLAIN}, train=_TRAIN | {"cache": str(cached)})


def score_run(out: Path, **score: object) -> Path:
    """The file of a run, and its pairs. `score`: more of that section."""
    write_pairs(out / "run" / "synthetic", PAIRS)
    return write_config(out, score={"measures": ["flicker", "motion_flow"], "workers": 2, **score})


def synthesize_run(out: Path) -> Path:
    """The file of a run on the small backbone, and its clips."""
    draw(out / "clips")
    path = out / "run.yaml"
    path.write_text(yaml.safe_dump(values(out, same_kind=False, count=PAIRS, workers=2)), "utf-8")
    return path


def digests(out: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Hashes of the files, by name."""
    found = sorted(path for pattern in patterns for path in out.glob(pattern) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
