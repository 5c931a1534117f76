"""A video, or a pair of them, to clips: looked through, cut, sized, written, with poses and captions."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dreamactor_core.clips import resample_by_timestamp
from dreamactor_core.extract.weights import sha256_of
from dreamactor_core.poses import PoseSequence
from dreamactor_core.text.fusion import Texts
from headless.media import MediaError, read_image
from training.data import captions, copytrap, poses
from training.data.cutting import Window, choose_size, cut, lengths
from training.data.dropping import Drop
from training.data.shots import ShotFinder
from training.data.unit import Job, Outcome, Unit
from training.data.video import VideoInfo, look_through, read
from training.data.writing import write_bytes, write_poses
from training.manifest import Sample
from training.video import ClipEncoder

_SLOWEST = 0.5  # of clip.fps: below that most frames would be shown twice or more
_UNEQUAL = 0.5  # seconds by which a driver's length may differ from its target's


@dataclass(frozen=True)
class VideoUnit(Unit):
    """A video, with what stands beside it.

    Attributes:
        id: Of the samples; empty: made of the name and of the file's sha256.
        driver: e2e only. `reference`: a picture of the character. `caption`: a text, or the file that holds one.
        stated_fps, stated_sha256: What a manifest says of the target.
    """

    name: str
    target: Path
    kind: Literal["pose", "e2e"] = "pose"
    id: str = ""
    driver: Path | None = None
    reference: Path | None = None
    poses: Path | None = None
    caption: str | Path = ""
    stated_fps: float | None = None
    stated_sha256: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        beside = self.caption if isinstance(self.caption, Path) else None
        return tuple(path for path in (self.target, self.driver, self.reference, self.poses, beside) if path is not None)

    @property
    def identity(self) -> str:
        caption = "a file" if isinstance(self.caption, Path) else self.caption
        has = [path is not None for path in (self.driver, self.reference, self.poses)]
        return repr((self.name, self.kind, self.id, has, caption, self.stated_fps, self.stated_sha256, sorted(self.scores.items())))

    def make(self, job: Job) -> Outcome:
        hashes = [sha256_of(path) if path.is_file() else "" for path in self.files]
        outcome = Outcome(sha256=hashes)
        try:
            self._check(hashes)
            _Cutter(self, job, outcome).cut()
        except Drop as drop:
            outcome.dropped.append(drop.of(self.name))
        return outcome

    def _check(self, hashes: list[str]) -> None:
        if self.stated_sha256 and hashes[0] and self.stated_sha256.lower() != hashes[0]:
            raise Drop("damaged", f"its sha256 is {hashes[0]}, expected {self.stated_sha256} as its line says; get the file again")
        if self.driver is not None and hashes[0] and hashes[0] == hashes[1]:
            raise Drop("copy", f"{self.driver.name} has the same bytes as {self.target.name}; expected another character")


class _Cutter:
    """Makes the clips of one unit."""

    def __init__(self, unit: VideoUnit, job: Job, outcome: Outcome) -> None:
        self.unit, self.job, self.outcome = unit, job, outcome
        self.config, self.data, self.fps = job.config, job.config.data, job.config.clip.fps

    def cut(self) -> None:
        """Raises Drop for what concerns all clips."""
        unit = self.unit
        self.info, starts = self._look(unit.target)
        if unit.stated_fps and abs(unit.stated_fps / self.info.fps - 1) > 0.02:
            note = f"its line states {unit.stated_fps:g} fps, its timestamps say {self.info.fps:.4g}: read by the timestamps"
            self.outcome.notes.append(f"{unit.name}: {note}")
        self.window = choose_size(self.info.height, self.info.width, self.config.clip.sizes, self.data.max_upscale)
        wanted = resample_by_timestamp(self.info.times, self.info.end, self.fps)
        begins = {int(np.searchsorted(wanted, start)) for start in starts}
        driving = None
        if unit.driver is not None:
            driver, driver_starts = self._look(unit.driver)
            if abs(driver.end - self.info.end) > _UNEQUAL:
                raise Drop("not_aligned", f"the driver lasts {driver.end:.2f} s, expected {self.info.end:.2f} s as the target")
            self.driver_window = Window((driver.height, driver.width), self.window.height, self.window.width)
            if self.driver_window.scale > self.data.max_upscale:
                raise Drop("too_small", f"the driver's pictures would be enlarged {self.driver_window.scale:.2f} times")
            following = resample_by_timestamp(driver.times, driver.end, self.fps)
            begins |= {int(np.searchsorted(following, start)) for start in driver_starts}
            wanted, following = wanted[: len(following)], following[: len(wanted)]
            driving = _Reading(read(driver, following.tolist()))
        self.reference = self._reference()
        self.poses_of = self._pose_file()
        self.given = self._given_caption()
        pieces = list(cut(sorted(b for b in begins if b < len(wanted)), len(wanted), lengths(self.config)))
        several = sum(whole for *_, whole in pieces) > 1
        frames, number = _Reading(read(self.info, wanted.tolist())), 0
        for begin, stop, whole in pieces:
            passing = islice(frames, stop - begin)
            following_by = islice(driving, stop - begin) if driving is not None else None
            try:
                if broken := frames.broken or (driving and driving.broken):
                    raise broken
                if not whole:
                    least = lengths(self.config)[-1]
                    raise Drop("too_short", f"{stop - begin} frames of a shot are left, expected {least} or more")
                sample_id = self._id(number, several)
                number += 1
                self._clip(sample_id, wanted[begin:stop], passing, following_by)
            except Drop as drop:
                self.outcome.dropped.append(drop.of(unit.name, begin / self.fps, stop / self.fps))
            for rest in (passing, following_by or ()):
                with contextlib.suppress(Drop):  # of the reader, which the next piece is told of
                    for _ in rest:  # what a dropped clip has not looked at
                        pass

    def _look(self, path: Path) -> tuple[VideoInfo, list[int]]:
        finder = ShotFinder() if self.data.shots else None
        info = look_through(path, finder)
        if info.note:
            self.outcome.notes.append(f"{self.unit.name}: {path.name}: {info.note}")
        if info.fps < _SLOWEST * self.fps:
            raise Drop(
                "slow", f"{path.name} has {info.fps:.3g} frames per second, expected at least half of clip.fps, {self.fps:g}"
            )
        return info, finder.starts() if finder else [0]

    def _id(self, number: int, several: bool) -> str:
        if self.unit.id:
            return f"{self.unit.id}-{number:03d}" if several else self.unit.id
        plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.unit.name).stem).strip("-")[:60] or "clip"
        return f"{plain}-{self.outcome.sha256[0][:12]}-{number:03d}"

    def _reference(self) -> np.ndarray | None:
        path = self.unit.reference
        if path is None:
            return None
        try:
            picture = read_image(path)
        except MediaError as error:
            raise Drop("bad_reference", str(error)) from error
        window = Window(picture.shape[:2], self.window.height, self.window.width)
        if window.scale > self.data.max_upscale:
            raise Drop("too_small", f"the reference image would be enlarged {window.scale:.2f} times")
        return window.picture(picture)

    def _pose_file(self) -> Callable[[np.ndarray], PoseSequence] | None:
        if self.data.poses != "file" or (self.unit.kind == "e2e" and self.unit.poses is None):
            return None
        path = self.unit.poses or self.unit.target.with_suffix(".json")
        return poses.read_poses(path, self.info.times, self.info.end)

    def _given_caption(self) -> Texts:
        if self.data.captions != "file":
            return Texts()
        caption = self.unit.caption
        text = captions.read_caption(caption) if isinstance(caption, Path) else " ".join(caption.split())
        if not text:
            raise Drop("no_caption", "there is no caption, expected a text; or set data.captions to another way")
        return Texts(fused=text)

    def _clip(self, name: str, wanted: np.ndarray, frames: Iterator[np.ndarray], driving: Iterator[np.ndarray] | None) -> None:
        """One clip, written when all is known that could drop it. Raises Drop."""
        job, unit, window, count = self.job, self.unit, self.window, len(wanted)
        lead_in = self.config.clip.spec(count).lead_in
        target = _Tape(window, self.fps, captions.Shown(self.fps, lead_in) if self.data.captions == "service" else None)
        driver = _Tape(self.driver_window, self.fps) if driving is not None else None
        found = None
        if self.data.poses == "extract":
            try:
                found = poses.extract(self.data, target.passing(frames), count, self.fps)
            except Drop:
                if unit.kind == "pose":
                    raise
        for _ in target.passing(frames):  # unless they have passed by already
            pass
        target.expect(count)
        if driver is not None and driving is not None:
            for _ in driver.passing(driving):
                pass
            driver.expect(count)
            copytrap.check(target.small, driver.small, self.fps)
        if self.poses_of is not None:
            found = window.poses(self.poses_of(wanted))
        if unit.kind == "pose" and found is not None:
            poses.check_seen(found)
        texts = self._texts(found, target.shown, lead_in)

        made: dict[str, Any] = {"target_video": job.folder / f"{name}.mp4", "source_sha256": self.outcome.sha256[0]}
        write_bytes(made["target_video"], target.finish())
        if driver is not None:
            made |= {"driving_video": job.folder / f"{name}.driving.mp4", "driving_sha256": self.outcome.sha256[1]}
            made["pairs"] = "filmed"  # what `synthesize` makes and what a world draws has manifests of its own
            write_bytes(made["driving_video"], driver.finish())
        if found is not None:
            made["poses"] = job.folder / f"{name}.poses.json"
            write_poses(made["poses"], found, self.fps)
        if self.reference is not None:
            made |= self._write_reference(name, self.reference)
        sample = Sample(
            id=name, kind=unit.kind, caption=texts.fused, motion=texts.motion, appearance=texts.appearance, fps=self.fps,
            frames=count, width=window.width, height=window.height, scores=unit.scores, note="; ".join(self.outcome.notes), **made,
        )  # fmt: skip
        self.outcome.samples.append(sample)

    def _write_reference(self, name: str, picture: np.ndarray) -> dict[str, Path]:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        written = {"reference_image": self.job.folder / f"{name}.reference.png"}
        write_bytes(written["reference_image"], buffer.getvalue())
        if self.data.poses == "extract":
            try:
                seen = poses.extract(self.data, [picture], 1, None)
            except Drop:
                return written
            written["reference_poses"] = self.job.folder / f"{name}.reference.json"
            write_poses(written["reference_poses"], seen, self.fps)
        return written

    def _texts(self, found: PoseSequence | None, shown: captions.Shown | None, lead_in: int) -> Texts:
        if self.data.captions == "describe":
            if found is None:
                raise Drop("nobody", "there are no poses to describe")
            return captions.describe(found, self.fps, lead_in)
        if shown is not None:
            return captions.ask(captions.writer(self.data, self.job.folder / "answers"), shown)
        return self.given


class _Reading:
    """The frames of a reader. One that gave up has no more of them for anybody, and `broken` says why."""

    def __init__(self, frames: Iterator[np.ndarray]) -> None:
        self._frames = frames
        self.broken: Drop | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        if self.broken is not None:
            raise self.broken
        try:
            return next(self._frames)
        except Drop as drop:
            self.broken = drop
            raise


class _Tape:
    """Frames that pass by on their way into a clip file; what else is needed of them is kept small."""

    def __init__(self, window: Window, fps: float, shown: captions.Shown | None = None) -> None:
        self._window, self.shown, self.small = window, shown, list[np.ndarray]()
        self._encoder = ClipEncoder(window.height, window.width, fps)

    def passing(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames in the clip's size, the same object for the same object."""
        last, picture = None, np.zeros(0)
        for frame in frames:
            if frame is not last:
                last, picture = frame, self._window.picture(frame)
            if self.shown is not None:
                self.shown.see(self._encoder.frames, picture)
            self.small.append(copytrap.small(picture))
            self._encoder.add(picture)
            yield picture

    def expect(self, count: int) -> None:
        """Raises Drop unless that many frames have passed by."""
        if self._encoder.frames != count:
            raise Drop("damaged", f"{self._encoder.frames} frames of the clip came out of the reader, expected {count}")

    def finish(self) -> bytes:
        """The clip's file."""
        return self._encoder.finish()
