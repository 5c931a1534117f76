"""The whole verb on local Ray with two CPU actors: broken off, resumed, robbed of an actor, and given broken clips."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import yaml
from filelock import FileLock
from synthesis import LEAD_IN, ROOT, draw, values

from training.__main__ import main
from training.manifest import read, write
from training.video import read_clip

Found = TypeVar("Found")
COUNT = 18
SETTINGS = {"same_kind": False, "count": COUNT, "batch": 1, "workers": 2}
PLANS = ("human", "cartoon", "human", "cartoon", "human")  # twenty pairs


def prepared(folder: Path, plans: tuple[str, ...] = PLANS, **settings: object) -> tuple[Path, Path]:
    """A run's folder with clips in it, and its YAML."""
    draw(folder / "clips", plans)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values(folder, **(SETTINGS | settings))), "utf-8")
    return folder, path


def digests(folder: Path) -> dict[str, str]:
    """Everything that was made, by name."""
    made = (path for path in (folder / "synthetic").rglob("*") if path.is_file() and path.name not in (".lock", "config.yaml"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an unbroken run makes."""
    folder, path = prepared(tmp_path_factory.mktemp("whole"))
    said, started = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(said):
        assert main(["synthesize", str(path)]) == 0
    made = re.search(r"^made (\d+) pairs in ([\d.]+) s, ([\d.]+) a second, with 2 workers$", said.getvalue(), re.M)
    count, seconds, speed = map(float, made.groups())
    assert count == COUNT and 0 < seconds <= time.monotonic() - started and speed == pytest.approx(count / seconds, rel=0.05)
    samples = read(folder / "synthetic" / "manifest.jsonl")
    assert len(samples) == COUNT and len({(s.target_video.name, s.note) for s in samples}) == COUNT
    for one in samples:
        assert len(read_clip(one.driving_video)) == one.frames - LEAD_IN and one.driving_start == LEAD_IN
        assert one.driving_reference_poses.is_file(), "it was retargeted"
        assert one.driving_sha256 == hashlib.sha256(one.driving_video.read_bytes()).hexdigest()
    found = digests(folder)
    pictures = {s.driving_reference for s in samples}
    assert all(picture.is_file() for picture in pictures)
    assert len(found) == 2 * COUNT + len(pictures) + 1, "a clip and a record for each, characters, the manifest, nothing else"
    before = {name: (folder / name).stat().st_mtime_ns for name in found if "/clips/" in name}
    with contextlib.redirect_stdout(said := io.StringIO()):
        assert main(["synthesize", str(path)]) == 0, "there is nothing left to do"
    assert "\nmade " not in said.getvalue() and f"{COUNT} of {COUNT} pairs are in" in said.getvalue()
    assert before == {name: (folder / name).stat().st_mtime_ns for name in before} and digests(folder) == found
    return found


def begun(path: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    command = [sys.executable, "-m", "training", "synthesize", str(path)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """With everything that it started, as when the machine stops."""
    parent = psutil.Process(process.pid)
    parent.suspend()  # first of all: it gives out nothing more while the others are looked for
    children = parent.children(recursive=True)
    process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def until(look: Callable[[], list[Found]], process: subprocess.Popen[bytes], seconds: float = 240) -> list[Found]:
    """What is found as soon as there is any."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.02)
    return found


def test_killed_and_resumed_and_robbed_of_an_actor(tmp_path: Path, whole: dict[str, str]) -> None:
    folder, path = prepared(tmp_path)
    process = begun(path)

    def records() -> list[Path]:
        return list((folder / "synthetic" / "units").glob("*/*.json"))

    until(records, process)
    kill_all(process)
    kept = digests(folder)
    assert not (folder / "synthetic" / "manifest.jsonl").exists()
    assert {name: digest for name, digest in kept.items() if not name.endswith(".part")}.items() <= whole.items()
    assert len(records()) < COUNT - 4, "it was broken off before its end, or this test says nothing"
    process = begun(path)

    def at_work() -> list[psutil.Process]:
        """Actors that have a package: Ray names their processes so."""
        found = []
        for one in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # some end while we look
                found += [one] if "Worker.run" in " ".join(one.cmdline()) else []
        return found

    until(at_work, process)[0].kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    assert digests(folder) == whole


def test_broken_clips_fail_alone_and_are_made_once_they_are_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    characters = tmp_path / "characters.jsonl"
    folder, path = prepared(tmp_path, PLANS[:3], references=str(characters), count=4, batch=2)
    write(characters, read(folder / "clips" / "manifest.jsonl")[1:])
    clip = folder / "clips" / "clip0.mkv"
    good = clip.read_bytes()
    clip.write_bytes(good[: len(good) // 2])
    assert main(["synthesize", str(path)]) == 1
    said, made = capfd.readouterr().out, digests(folder)
    failures = (folder / "synthetic" / "failed.jsonl").read_text("utf-8").splitlines()
    samples = read(folder / "synthetic" / "manifest.jsonl")
    assert sorted(one.target_video.name for one in samples) == ["clip1.mkv", "clip2.mkv"]
    assert len(failures) == 2 and all("clip0.mkv" in line for line in failures) and "clip0.mkv" in said
    clip.write_bytes(good)
    assert main(["synthesize", str(path)]) == 0
    after = digests(folder)
    assert not (folder / "synthetic" / "failed.jsonl").exists()
    assert {name: after[name] for name in made if "/units/" in name or "/clips/" in name}.items() <= made.items()
    assert len(read(folder / "synthetic" / "manifest.jsonl")) == 4


def test_one_run_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, path = prepared(tmp_path)
    (folder / "synthetic").mkdir()
    with FileLock(folder / "synthetic" / ".lock"):
        assert main(["synthesize", str(path)]) == 1
    assert "another synthesize is at work" in capfd.readouterr().err


def test_what_is_wrong_with_a_config_is_said_before_ray_is_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, path = prepared(tmp_path, lora=None)
    started = time.monotonic()
    assert main(["synthesize", str(path)]) == 1
    assert "synthesize.lora is not given" in capfd.readouterr().err and time.monotonic() - started < 20
