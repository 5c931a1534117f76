"""The list of samples that the verbs hand to each other: one JSON object a line, paths relative to the list's own folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headless.atomic import atomic
from training.errors import UserError


class Sample(BaseModel):
    """One training sample, or one clip on its way to become one.

    Attributes:
        id: Unique in its manifest; also the stem of the files made from it.
        kind: `pose`: a clip and its own skeleton. `e2e`: a clip, and the raw video of another character doing the same.
        target_video: The clip to be reconstructed, lead-in included.
        driving_video: e2e only: what drives it; its frames stand at those of the target from `driving_start` on.
        driving_start: Frame of the target at which the first driving frame stands.
        driving_reference: e2e only: the image of the character that the driving video was made from, where it is synthetic.
        driving_reference_poses: e2e only: POSE_KEYPOINT frames whose first is that of `driving_reference`, where the driving video
            was made with poses retargeted to it: its character stands there, in that size. None: it stands as the target's does.
        reference_image: The character; None takes the target's first frame.
        poses: POSE_KEYPOINT frames of the target (JSON: `{"frames": [...], "frame_ms": ...}`), one a frame of it.
        reference_poses: The same of the reference image, one frame; None takes the first of `poses`.
        caption: The prompt. `motion` and `appearance` are its two halves where they are known apart.
        fps, frames, width, height: Of the target.
        source_sha256: Of the file that the target was cut from. `driving_sha256`: of the driving file.
        pairs: e2e only: where the driving video is from: `synthetic`, `ground_truth` (a drawn world's), or `filmed`.
        scores: Name of a measure to its value. `accepted`: the human's decision, None before it was made.
        note: Why it is as it is, for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    kind: Literal["pose", "e2e"]
    target_video: Path
    driving_video: Path | None = None
    driving_start: int = Field(0, ge=0)
    driving_reference: Path | None = None
    driving_reference_poses: Path | None = None
    reference_image: Path | None = None
    poses: Path | None = None
    reference_poses: Path | None = None
    caption: str = ""
    motion: str = ""
    appearance: str = ""
    fps: float = Field(gt=0, le=240)
    frames: int = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    source_sha256: str = ""
    driving_sha256: str = ""
    pairs: Literal["", "synthetic", "ground_truth", "filmed"] = ""
    scores: dict[str, float] = {}
    accepted: bool | None = None
    note: str = ""

    @model_validator(mode="after")
    def _has_its_driver(self) -> Sample:
        if self.kind == "e2e" and self.driving_video is None:
            raise ValueError("an e2e sample needs a driving_video; a clip with its own skeleton is of kind pose")
        if self.driving_start >= self.frames:
            raise ValueError(f"driving_start is {self.driving_start}, expected less than the {self.frames} frames of the target")
        return self


PATHS = (
    "target_video", "driving_video", "driving_reference", "driving_reference_poses", "reference_image", "poses", "reference_poses",
)  # fmt: skip


def read(path: Path) -> list[Sample]:
    """All samples with paths as they can be opened. Raises UserError with the line that is wrong, or for two of one id."""
    if not path.is_file():
        raise UserError(f"there is no manifest {path}; `python -m training data` and `synthesize` write them")
    samples: dict[str, Sample] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            sample = Sample.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise UserError(f"{path}, line {number}: {where}: {first['msg']}, got {str(first['input'])[:80]}") from error
        if sample.id in samples:
            raise UserError(f"{path}, line {number}: the id {sample.id} is there already, expected one line for each id")
        found = {name: path.parent / getattr(sample, name) for name in PATHS if getattr(sample, name) is not None}
        samples[sample.id] = sample.model_copy(update=found)
    return list(samples.values())


def to_line(sample: Sample, folder: Path) -> str:
    """A sample as a line of a manifest in `folder`: its paths relative to there, also across folders."""
    data = sample.model_dump(mode="json", exclude_defaults=True)
    for name in PATHS:
        if name in data:
            data[name] = _from(folder, data[name])
    return json.dumps(data, ensure_ascii=False)


def _from(folder: Path, path: str) -> str:
    """A path as it is opened from a folder. posix, so that a manifest made on Windows is read elsewhere."""
    place, name = os.path.split(os.path.abspath(path))
    return Path(_way(os.path.abspath(folder), place), name).as_posix()


@lru_cache(4096)
def _way(start: str, place: str) -> str:
    """From one folder to another; the other itself where there is none, as to another drive."""
    try:
        way = os.path.relpath(place, start)
        # from a folder that is a link, `..` leads to the parent of what it links to
        if os.path.realpath(os.path.join(start, way)) != os.path.realpath(place):
            way = os.path.relpath(os.path.realpath(place), os.path.realpath(start))
    except ValueError:
        return place
    return way


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Write a manifest, whole or not at all."""
    write_lines(path, (to_line(sample, path.parent) for sample in samples))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a manifest of lines that are made already, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
