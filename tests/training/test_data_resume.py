"""Killed, out of room, or with a reader that dies: what is finished stays, and the end is the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import yaml
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos
from full_disk import can_be_had, without_room

from training.config import Config
from training.data import build, clips
from training.data.journal import NAME
from training.data.unit import Source
from training.data.video import VideoInfo
from training.errors import UserError
from training.video import read_clip

ROOT = Path(__file__).resolve().parents[2]
COUNT = 6


def drawn(folder: Path, count: int) -> Path:
    for number in range(count):
        videos.write(folder / f"{number:02d}.mp4", videos.moving(75, 120, 80, shot=number), 24)
    (folder / "bad.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("in"), COUNT)


def config(source: Path, out: Path, workers: int = 1) -> Config:
    return videos.config(out, {"sizes": [[80, 112]], "frames": 17}, folder=source, workers=workers)


def made(out: Path) -> dict[str, str]:
    """Hashes of all that came out; the journal tells when it came and the config where."""
    files = [path for path in sorted((out / "clips").iterdir()) if path.name not in (NAME, "config.yaml")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def unbroken(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("unbroken")
    build.build(config(source, out))
    return made(out)


def started(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    (out / "run.yaml").write_text(yaml.safe_dump(config(source, out, workers).model_dump(mode="json")), "utf-8")
    command = [sys.executable, "-m", "training", "data", str(out / "run.yaml")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Videos whose making is still far from its end when it is killed, and what an unbroken run makes of them."""
    source, out = drawn(tmp_path_factory.mktemp("many"), 2 * COUNT), tmp_path_factory.mktemp("whole")
    build.build(config(source, out))
    return source, made(out)


@pytest.mark.parametrize(("workers", "moments"), [(1, (1, 4)), (2, (2,))])
def test_killed_and_called_again_it_ends_the_same(
    workers: int, moments: tuple[int, ...], many: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    source, unbroken = many
    journal, finished = tmp_path / "clips" / NAME, 0
    for after in moments:  # units that are finished when it is killed
        process = started(source, tmp_path, workers)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            finished = journal.read_bytes().count(b"\n") if journal.exists() else 0
            if finished >= after:
                process.kill()
            time.sleep(0.005)
        process.wait()
        assert not (tmp_path / "clips" / "manifest.jsonl").exists(), "it was over before it was killed"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").glob("*.mp4")}
    with journal.open("ab") as file:  # killed while it wrote a line, too
        file.write(b'{"key": "3f')
    done = {line.split('"unit": "')[1][:6] for line in journal.read_text("utf-8").splitlines()[:finished]}
    build.build(config(source, tmp_path))
    assert made(tmp_path) == unbroken
    again = {path.name[:6] for path, written in kept.items() if path.stat().st_mtime_ns != written}
    assert not {name.replace(".", "-")[:2] for name in done} & {name[:2] for name in again}, "finished clips were made again"


def test_only_what_changed_is_made_again(source: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        videos.write(folder / f"{number}.mp4", videos.moving(30, shot=number), 24)
    settings = videos.config(out, folder=folder)
    before = build.build(settings)
    written = [sample.target_video.stat().st_mtime_ns for sample in before]
    os.utime(folder / "0.mp4")  # another time, the same bytes
    videos.write(folder / "1.mp4", videos.moving(30, shot=9), 24)
    before[2].target_video.unlink()
    after = build.build(settings)
    assert after[0] == before[0] and after[0].target_video.stat().st_mtime_ns == written[0]
    assert after[1].source_sha256 != before[1].source_sha256
    assert after[2] == before[2] and after[2].target_video.is_file()
    # other settings are other clips
    other = build.build(videos.config(out, {"sizes": [[32, 48]]}, folder=folder))
    assert [(sample.width, sample.height) for sample in other] == [(32, 48)] * 3


def test_clips_that_other_settings_wrote_over_are_made_again(tmp_path: Path) -> None:
    """Settings are changed and set back: the names of the files are the same. A copy elsewhere is what it was."""
    folder, out = tmp_path / "in", tmp_path / "out"
    videos.write(folder / "0.mp4", videos.moving(30), 24)
    large, small = videos.config(out, folder=folder), videos.config(out, {"sizes": [[32, 48]]}, folder=folder)
    before = build.build(large)
    first = made(out)
    build.build(small)
    assert made(out) != first and made(out).keys() == first.keys()
    assert build.build(large) == before and made(out) == first
    written = before[0].target_video.stat().st_mtime_ns
    os.utime(before[0].target_video, ns=(written + 1, written + 1))  # another time, the same bytes
    assert build.build(large) == before and before[0].target_video.stat().st_mtime_ns == written + 1


@can_be_had
def test_without_room_it_stops_and_goes_on_later(source: Path, unbroken: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(source, tmp_path).model_dump(mode="json")), "utf-8")
    assert "can't be written (File too large); make room" in without_room("data", tmp_path / "run.yaml")
    left = {path.name for path in (tmp_path / "clips").iterdir()}
    assert left <= {"config.yaml", NAME, ".lock"}, left
    build.build(config(source, tmp_path))
    assert made(tmp_path) == unbroken


def test_a_folder_that_may_not_be_written_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("a file, where a folder should be", "utf-8")
    process = started(source, tmp_path, 1)
    assert process.wait(120) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "run.yaml"}


def test_one_run_a_folder(source: Path, tmp_path: Path) -> None:
    """Two would remove each other's half-written clips."""
    (tmp_path / "clips").mkdir()
    partial = tmp_path / "clips" / ".a.mp4.1-2.part"
    partial.write_bytes(b"the other one's")
    with FileLock(tmp_path / "clips" / ".lock"), pytest.raises(UserError, match=r"another data is at work in .*clips; wait for it"):
        build.build(config(source, tmp_path))
    assert partial.exists()


@pytest.mark.parametrize("driven", [False, True])
def test_a_file_that_is_cut_short_on_the_way_ends_there(driven: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was looked through: the clips before that stay, and all of the rest is listed."""
    folder, real = tmp_path / "in", clips.read
    long = videos.write(folder / "a.mp4", videos.moving(150, shot=1), 24)
    changed = videos.write(folder / "b.mp4", videos.moving(150, shot=2), 24) if driven else long
    line = {"id": "a", "target_video": "a.mp4"} | ({"kind": "e2e", "driving_video": "b.mp4"} if driven else {})
    (folder / "list.jsonl").write_text(json.dumps(line) + "\n", "utf-8")

    def late(info: VideoInfo, wanted: list[int]) -> Iterator[np.ndarray]:
        if info.path == changed:
            videos.write(changed, videos.moving(70, shot=1 + driven), 24)
        return real(info, wanted)

    monkeypatch.setattr(clips, "read", late)
    samples = build.build(videos.config(tmp_path, source="manifest", manifest=folder / "list.jsonl"))
    dropped = [json.loads(text) for text in (tmp_path / "clips" / "dropped.jsonl").read_text("utf-8").splitlines()]
    assert [sample.id for sample in samples] == ["a-000"]
    assert all(path.stat().st_size for path in (tmp_path / "clips").glob("*.mp4")) and len(read_clip(samples[0].target_video)) == 17
    assert {one["reason"] for one in dropped} == {"damaged"} and all("changed meanwhile" in one["detail"] for one in dropped)
    assert [one["start"] for one in dropped] == [17 / 8, *(one["end"] for one in dropped[:-1])] and dropped[-1]["end"] == 50 / 8


class _Deadly(clips.VideoUnit):
    """A unit whose reader takes its process with it. It leaves a mark beside its file before it goes."""

    def make(self, job: object) -> NoReturn:
        with self.target.with_suffix(".marks").open("a", encoding="utf-8") as file:
            file.write("x")
        os._exit(9)


def test_a_reader_that_dies_costs_its_own_source_only(
    source: Path, unbroken: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = build.SOURCES["folder"]

    def with_one_that_dies(settings: Config) -> Source:
        whole = found(settings)
        whole.units[3:3] = [_Deadly("deadly.mp4", tmp_path / "deadly.mp4")]
        return whole

    monkeypatch.setitem(build.SOURCES, "folder", with_one_that_dies)
    samples = build.build(config(source, tmp_path, workers=2))
    assert len(samples) == COUNT
    assert (tmp_path / "deadly.marks").read_text("utf-8") == "xx"
    assert '"deadly.mp4", "reason": "crashed"' in (tmp_path / "clips" / "dropped.jsonl").read_text("utf-8")
    assert {name for name, _ in made(tmp_path).items() ^ unbroken.items()} == {"dropped.jsonl"}
    # it is tried again by the next call, and nothing else is
    build.build(config(source, tmp_path, workers=2))
    assert (tmp_path / "deadly.marks").read_text("utf-8") in ("xxx", "xxxx")


def test_a_reader_that_dies_alone_is_listed_too(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One source, or the estimator, takes one process; it is not this one unless data.workers says so."""
    dies = Source([_Deadly("deadly.mp4", tmp_path / "deadly.mp4")])
    monkeypatch.setitem(build.SOURCES, "folder", lambda _: dies)
    settings = config(source, tmp_path, workers=0)
    assert build._workers(settings, 1) == 1, "in this process it would end the tests, too"
    extracts = settings.model_copy(update={"data": settings.data.model_copy(update={"poses": "extract"})})
    assert build._workers(extracts, 5) == 1 and build._workers(config(source, tmp_path), 5) == 0
    assert build.build(settings) == []
    assert '"deadly.mp4", "reason": "crashed"' in (tmp_path / "clips" / "dropped.jsonl").read_text("utf-8")
