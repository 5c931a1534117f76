"""What `synthesize` leaves on disk: clips without loss, records that are whole, the manifest of Eq. 4."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from synthesis import FPS, HEIGHT, LEAD_IN, WIDTH, config, draw

from dreamactor_core.clips import ClipSpec
from headless.media import MediaError, read_image
from training.errors import UserError
from training.manifest import read
from training.synthesize.plan import Needs, Package, Teaching, Unit, packages, plan_units
from training.synthesize.records import Folder
from training.synthesize.video import first_frame, read_timed
from training.synthesize.worker import Lost, Outcome, Worker
from training.video import read_clip, write_clip

SPECS = {13: ClipSpec(13, LEAD_IN, FPS)}
FRAMES = np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def units(tmp_path: Path) -> list[Unit]:
    samples = draw(tmp_path / "clips")
    return plan_units(config(tmp_path, same_kind=False), samples, samples, Teaching("x", Needs(True, False, True)))


def test_small_clips_keep_every_bit_and_the_same_frames_are_the_same_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.mkv", tmp_path / "other.mkv"
    for path in (one, other):
        write_clip(path, FRAMES, FPS, lossless=True)
    assert np.array_equal(read_clip(one), FRAMES) and np.array_equal(first_frame(one), FRAMES[0])
    assert one.read_bytes() == other.read_bytes()
    frames, times, end = read_timed(one)
    assert np.array_equal(frames, FRAMES)
    assert np.allclose([*times, end], np.arange(6) / FPS, atol=1e-3)


def test_large_clips_are_h264_and_close(tmp_path: Path) -> None:
    smooth = np.repeat(np.linspace(20, 230, 64, dtype=np.uint8)[None, None, :, None], 3, -1)
    smooth = np.broadcast_to(smooth, (4, 48, 64, 3))
    for name in ("one", "other"):
        write_clip(tmp_path / f"{name}.mp4", smooth, FPS, lossless=False)
    assert np.abs(read_clip(tmp_path / "one.mp4").astype(int) - smooth).mean() < 3
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_files_that_are_no_videos(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clip.mkv"
    if content is not None:
        path.write_bytes(content)
    for reader in (read_clip, first_frame, read_timed):
        with pytest.raises((MediaError, UserError)):
            reader(path)


def test_a_unit_is_finished_when_clip_and_record_are_there_and_whole(tmp_path: Path, units: list[Unit]) -> None:
    folder, unit = Folder(tmp_path / "synthetic"), units[0]
    assert folder.finished(unit.id) is None
    record = folder.store(unit, FRAMES)
    assert folder.finished(unit.id) == record
    clip, note = folder.path / str(record["clip"]), folder.record_path(unit.id)
    for path, damage in ((clip, clip.read_bytes()[:-1]), (note, note.read_bytes()[:20]), (note, b"[]"), (note, b"")):
        whole = path.read_bytes()
        path.write_bytes(damage)
        assert folder.finished(unit.id) is None
        path.write_bytes(whole)
    clip.unlink()
    assert folder.finished(unit.id) is None
    left = [clip.with_name(f".{clip.name}.77.part"), note.with_name(f".{note.name}.77.part")]
    for path in left:
        path.write_text("half")
    folder.remove_partials()
    assert not any(path.exists() for path in left) and note.exists()


def test_the_manifest_holds_triplets_in_the_order_of_the_plan(tmp_path: Path, units: list[Unit]) -> None:
    folder = Folder(tmp_path / "synthetic")
    records = {unit.id: folder.store(unit, FRAMES) for unit in reversed(units[:3])}
    folder.write_manifest(units, records, SPECS, retargeted=True)
    text = folder.manifest.read_text("utf-8")
    assert str(tmp_path) not in text and "../clips/clip0.mkv" in text
    found = read(folder.manifest)
    assert [one.id for one in found] == [unit.id for unit in units[:3]]
    for one, unit in zip(found, units, strict=False):
        assert one.kind == "e2e" and one.driving_start == LEAD_IN and one.reference_image is None
        assert one.target_video.samefile(unit.source.target_video) and one.caption == unit.source.caption
        assert np.array_equal(read_clip(one.driving_video), FRAMES) and one.driving_sha256 == records[unit.id]["sha256"]
        assert unit.reference.id in one.note and one.driving_reference_poses.samefile(unit.reference.poses)
    folder.write_failures(units, {units[1].id: "its clip is gone"})
    assert "its clip is gone" in folder.failures.read_text("utf-8")
    folder.write_failures(units, {})
    assert not folder.failures.exists()


def test_what_was_not_retargeted_names_no_poses_of_its_reference(tmp_path: Path, units: list[Unit]) -> None:
    folder = Folder(tmp_path / "synthetic")
    folder.write_manifest(units, {units[0].id: folder.store(units[0], FRAMES)}, SPECS, retargeted=False)
    assert [one.driving_reference_poses for one in read(folder.manifest)] == [None]


def test_a_character_that_is_drawn_anew_gets_a_new_picture(tmp_path: Path, units: list[Unit]) -> None:
    """Under the same id, in the same folder."""
    folder, unit = Folder(tmp_path / "synthetic"), units[0]
    records = {unit.id: folder.store(unit, FRAMES)}
    pictures = []
    for frames in (FRAMES, 255 - FRAMES):
        write_clip(unit.reference.target_video, frames, FPS, lossless=True)
        folder.write_manifest([unit], records, SPECS, retargeted=True)
        pictures.append(read_image(read(folder.manifest)[0].driving_reference))
    assert np.array_equal(pictures[0], FRAMES[0]) and np.array_equal(pictures[1], 255 - FRAMES[0])


class Scripted:
    """A teacher that makes the first unit, fails the second, and then does what the script says."""

    def __init__(self, then: Exception | None = None) -> None:
        self.then = then

    def make(self, package: Package):  # noqa: ANN201 - a generator, as Teacher says
        one, other, *_ = package.units
        yield one, FRAMES
        yield other, "its poses are gone"
        if self.then:
            raise self.then


@pytest.mark.parametrize(
    ("then", "field", "said"),
    [
        (None, "", ""),
        (Lost("the server is gone"), "lost", "server"),
        (OSError(errno.ENOSPC, "No space left"), "stop", "No space left"),
        (OSError(errno.EFBIG, "File too large"), "stop", "File too large"),
    ],
)
def test_what_a_worker_says_of_a_package(tmp_path: Path, units: list[Unit], then: Exception | None, field: str, said: str) -> None:
    worker = Worker(config(tmp_path).model_dump(mode="json"), None, 1)
    worker.teacher = Scripted(then)
    outcome = worker.run(packages(units, 3)[0])
    assert outcome.done == [units[0].id] and outcome.failed == {units[1].id: "its poses are gone"}
    assert {name: bool(getattr(outcome, name)) for name in ("stop", "lost")} == {"stop": field == "stop", "lost": field == "lost"}
    assert said in getattr(outcome, field or "stop")
    assert worker.folder.finished(units[0].id) and not worker.folder.finished(units[1].id)
    assert Outcome() == Outcome([], {}, "", "")


def test_other_trouble_with_files_is_no_full_disk(tmp_path: Path, units: list[Unit]) -> None:
    worker = Worker(config(tmp_path).model_dump(mode="json"), None, 1)
    worker.teacher = Scripted(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output"):
        worker.run(packages(units, 3)[0])
