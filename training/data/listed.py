"""Source `manifest`: a list of the user's, one JSON object a line; paths in it are relative to its own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.config import Config
from training.data.clips import VideoUnit
from training.data.dropping import Drop, Dropped
from training.data.unit import Source, Unit
from training.errors import UserError

_PATHS = ("target_video", "driving_video", "reference_image", "poses")


class Line(BaseModel):
    """What a line may say.

    Attributes:
        id: Unique. kind: `pose`: a clip; `e2e`: a clip, and another character who does the same at the same times.
        target_video: What is to be reconstructed. driving_video: e2e only. reference_image: of the target's character.
        poses: POSE_KEYPOINT frames of the target; otherwise those of the file of its name that ends in .json.
        caption: Otherwise the file of the target's name that ends in .txt.
        fps, source_sha256: Of the target: compared with what is found. scores: taken along.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")
    kind: Literal["pose", "e2e"] = "pose"
    target_video: Path
    driving_video: Path | None = None
    reference_image: Path | None = None
    poses: Path | None = None
    caption: str = ""
    fps: float | None = Field(None, gt=0, le=240)
    source_sha256: str = ""
    scores: dict[str, float] = {}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Line:
        if self.kind == "e2e" and self.driving_video is None:
            raise ValueError("an e2e line needs a driving_video: another character who does the same")
        if self.kind == "pose" and self.driving_video is not None:
            raise ValueError("a pose line has no driving_video, its own poses drive it; expected kind e2e")
        return self


def find(config: Config) -> Source:
    """A unit for each line. Raises UserError when there is no such file, or no line of it is right."""
    path = config.data.manifest
    if path is None or not path.is_file():
        raise UserError(f"data.manifest is {path or 'not given'}, expected a JSONL file; name its place")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as UTF-8 ({error}), expected one JSON object a line") from error
    units: dict[str, Unit] = {}
    dropped: list[Dropped] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = _read(text)
            if line.id in units:
                raise Drop("bad_line", f"the id {line.id} is there already, expected one line for each")
            units[line.id] = _unit(line, path.parent)
        except Drop as drop:
            dropped.append(drop.of(f"{path.name}, line {number}"))
    if not units:
        first = f"; the first trouble is in {dropped[0].source}: {dropped[0].detail}" if dropped else ""
        raise UserError(f"{path} has no line that is right{first}; expected JSON objects with id, kind and target_video")
    return Source(list(units.values()), dropped)


def _read(text: str) -> Line:
    try:
        return Line.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise Drop("bad_line", f"{where}: {first['msg']}, got {str(first['input'])[:80]}") from error


def _unit(line: Line, folder: Path) -> VideoUnit:
    """Raises Drop when a file that the line names is not there."""
    found = {name: folder / given for name in _PATHS if (given := getattr(line, name)) is not None}
    for name, path in found.items():
        if not path.is_file():
            raise Drop("missing_file", f"{name} is {path}, which is not there")
    target = found["target_video"]
    beside = target.with_suffix(".json")
    return VideoUnit(
        line.id, target, line.kind, line.id, found.get("driving_video"), found.get("reference_image"),
        found.get("poses") or (beside if beside.is_file() else None), line.caption or target.with_suffix(".txt"),
        line.fps, line.source_sha256, line.scores,
    )  # fmt: skip
