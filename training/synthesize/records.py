"""What is made, on disk: a clip and a small record for each unit; the manifest is written from the records.

A unit is finished when both are there. Each appears whole or not at all, the record last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dreamactor_core.clips import ClipSpec
from headless.atomic import atomic
from headless.media import write_image
from training.hashing import sha256
from training.manifest import Sample, write
from training.synthesize.plan import Unit, character_file, character_poses
from training.synthesize.video import LOSSLESS_PIXELS, first_frame, suffix
from training.video import write_clip

Record = dict[str, str | int]


class Folder:
    """`<out>/synthetic`: clips/, units/, references/, manifest.jsonl, failed.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.jsonl"

    @property
    def failures(self) -> Path:
        return self.path / "failed.jsonl"

    def record_path(self, unit: str) -> Path:
        """By the first digits of its id: folders of a hundred thousand files are slow on many disks."""
        return self.path / "units" / unit[:2] / f"{unit}.json"

    def finished(self, unit: str) -> Record | None:
        """The record of a unit whose clip is there too."""
        try:
            record: Record = json.loads(self.record_path(unit).read_text("utf-8"))
            size = (self.path / str(record["clip"])).stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if size == record["bytes"] else None

    def store(self, unit: Unit, frames: np.ndarray) -> Record:
        """Write a unit's clip, RGB uint8 (T, H, W, 3), and then its record. Raises OSError when the disk is full."""
        lossless = frames.shape[1] * frames.shape[2] <= LOSSLESS_PIXELS
        clip = Path("clips", unit.id[:2], f"{unit.id}{suffix(lossless)}")
        write_clip(self.path / clip, frames, unit.source.fps, lossless)
        data = (self.path / clip).read_bytes()
        record: Record = {
            "unit": unit.id, "clip": clip.as_posix(), "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
            "source": unit.source.id, "reference": unit.reference.id, "prompt": unit.prompt, "seed": unit.seed,
        }  # fmt: skip
        with atomic(self.record_path(unit.id)) as partial:
            partial.write_text(json.dumps(record, ensure_ascii=False) + "\n", "utf-8")
        return record

    def remove_partials(self) -> None:
        """Remove what a killed run has left half-written. No other run may be at work here."""
        for pattern in ("clips/*/.*.part", "units/*/.*.part", "references/.*.part", ".*.part"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def write_manifest(
        self, units: Sequence[Unit], records: Mapping[str, Record], spec_of: Mapping[int, ClipSpec], retargeted: bool
    ) -> None:
        """The triplets (V_o, V_src[0], V_src) of Eq. 4 in the plan's order.

        `spec_of`: by frames of the target. `retargeted`: whether the results stand as their references do, not as their sources.
        """
        pictures: dict[Path, Path] = {}  # of a character's file, which is that of many units
        made = (unit for unit in units if unit.id in records)
        write(self.manifest, (self._triplet(u, records[u.id], spec_of[u.source.frames], retargeted, pictures) for u in made))

    def _triplet(self, unit: Unit, record: Record, spec: ClipSpec, retargeted: bool, pictures: dict[Path, Path]) -> Sample:
        source, shown = unit.source, character_file(unit.reference)
        if shown not in pictures:
            pictures[shown] = self._picture(unit.reference)
        return Sample(
            id=unit.id, kind="e2e", target_video=source.target_video, driving_video=(self.path / str(record["clip"])).absolute(),
            driving_start=spec.lead_in, poses=source.poses, caption=source.caption, motion=source.motion,
            appearance=source.appearance, fps=source.fps, frames=source.frames, width=source.width, height=source.height,
            source_sha256=source.source_sha256, driving_sha256=str(record["sha256"]), pairs="synthetic",
            driving_reference=pictures[shown], driving_reference_poses=character_poses(unit.reference) if retargeted else None,
            note=f"the motion of {source.id} on {unit.reference.id}",
        )  # fmt: skip

    def _picture(self, reference: Sample) -> Path:
        """The character of a reference as a picture: its own, or its clip's first frame, written once for each content of the
        clip: a clip that is drawn anew shows another character under the same id."""
        if reference.reference_image is not None:
            return reference.reference_image
        path = self.path / "references" / f"{sha256(reference.target_video)[:24]}.png"
        if not path.exists():
            write_image(path, first_frame(reference.target_video))
        return path.absolute()

    def write_failures(self, units: Iterable[Unit], reasons: Mapping[str, str]) -> None:
        """One JSON line for each failed unit, with its reason; without any the file is removed."""
        lines = [
            {"unit": unit.id, "source": unit.source.id, "reference": unit.reference.id, "reason": reasons[unit.id]}
            for unit in units
            if unit.id in reasons
        ]
        if not lines:
            self.failures.unlink(missing_ok=True)
            return
        with atomic(self.failures) as partial:
            partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
