"""The verb `cache` at work: its processes, devices and disk, and what is left when it is killed."""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from drawn_clips import PLAIN, hashes, write_clips, write_run
from filelock import FileLock

from training import config
from training.__main__ import main
from training.errors import UserError
from training.latents import build as building
from training.latents.bodies import bodies_of
from training.latents.build import Work, build, plan
from training.latents.split import split


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "clips"
    write_clips(folder, 5)
    return folder / "manifest.jsonl"


def test_each_process_has_one_device(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever tasks it takes."""
    settings = config.load(write_run(tmp_path / "run.yaml", tmp_path, cache={"manifest": str(clips), "augment": PLAIN, "shard": 1}))
    samples, seen, load = split(settings)["train"][:2], [], building._encoders
    monkeypatch.setattr(building, "_encoders", lambda backbone, device: (seen.append(device), load(backbone, "cpu"))[1])
    monkeypatch.setattr(building, "_device", "cpu")
    devices: queue.SimpleQueue[str] = queue.SimpleQueue()
    devices.put("cuda:0")
    devices.put("cuda:1")
    monkeypatch.setattr(building, "end_with_parent", lambda: None)  # there is none
    monkeypatch.setattr(building, "_work", None)
    work = Work(settings, {"train": {}}, {"train": bodies_of(settings, samples)})
    for process in range(2):
        building._start(torch.get_num_threads(), devices, work)
        for job in plan(settings, samples, tmp_path / str(process) / "train"):
            building._write(job)
    assert seen == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def test_a_full_disk_is_said_in_words(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("x can't be written (No space left on device)")

    monkeypatch.setattr(building, "save_atomic", full)
    settings = config.load(write_run(tmp_path / "run.yaml", tmp_path, cache={"manifest": str(clips), "workers": 1}))
    with pytest.raises(UserError, match=r"No space left on device.*; make room, .* run the same command again"):
        build(settings)


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """Two processes, of which only the one that started them is killed, twice: they end by themselves, and the shards are those
    of an unbroken run."""
    write_clips(tmp_path / "clips", 9)  # so many that several are left, however far the processes go on after they were counted
    manifest = tmp_path / "clips" / "manifest.jsonl"
    cache = {"manifest": str(manifest), "shard": 1, "validation_share": 0.2, "augment": PLAIN, "workers": 2}
    whole = write_run(tmp_path / "whole.yaml", tmp_path / "whole", cache=cache)
    assert main(["cache", str(whole)]) == 0
    parts = write_run(tmp_path / "parts.yaml", tmp_path / "parts", cache=cache)
    command = [sys.executable, "-m", "training", "cache", str(parts)]
    folder, total = tmp_path / "parts" / "cache" / "train", len(list(tmp_path.glob("whole/cache/train/*.safetensors")))
    for after in (1, 2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        children: list[psutil.Process] = []
        # a killed one may have left a shard more than was counted: the next is not to be killed before its helpers are there
        while len(list(folder.glob("*.safetensors"))) < after or len(children) < 2:
            assert process.poll() is None and time.monotonic() < deadline, "it was over before it was killed"
            time.sleep(0.02)
            children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(children, timeout=30)
        left = [child for child in left if child.status() != psutil.STATUS_ZOMBIE]  # which has ended
        for child in left:
            child.kill()
        assert len(children) >= 2 and not left
    assert len(list(folder.glob("*.safetensors"))) < total, "it was killed before it was done"
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def test_the_last_shard_of_several_processes_is_rounded_as_theirs(clips: Path, tmp_path: Path) -> None:
    """It is made in this process, which has other threads."""
    cache = {"manifest": str(clips), "shard": 1, "validation_share": 0.2, "augment": PLAIN, "workers": 2}
    run = write_run(tmp_path / "run.yaml", tmp_path, cache=cache)
    assert main(["cache", str(run)]) == 0
    whole, threads = hashes(tmp_path), torch.get_num_threads()
    (tmp_path / "cache" / "train" / "64x96x25_00001.safetensors").unlink()
    torch.set_num_threads(4)
    try:
        assert main(["cache", str(run)]) == 0
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert hashes(tmp_path) == whole


def test_a_process_is_given_its_shard_alone(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all shards need is handed over once, when the process starts, and an rgb cache needs nothing of the other samples."""
    cache = {"manifest": str(clips), "validation_share": 0.2, "shard": 1, "workers": 2, "augment": PLAIN}
    settings, given = config.load(write_run(tmp_path / "run.yaml", tmp_path, cache=cache)), []

    class Watched(ProcessPoolExecutor):
        def submit(self, work: object, *arguments: object) -> Future:
            given.append(arguments)
            future: Future = Future()
            future.set_result(arguments[0].path)
            return future

    monkeypatch.setattr(building, "ProcessPoolExecutor", Watched)
    build(settings)
    assert [len(job.samples) for (job,) in given] == [1] * 5
    samples = split(settings)["train"]
    assert bodies_of(settings.model_copy(update={"variant": "rgb"}), samples).counts == {}
    assert len(pickle.dumps(bodies_of(settings, samples * 1000))) < 200, "nobody takes another's place"


def test_one_run_a_folder(clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run.yaml", tmp_path, cache={"manifest": str(clips)})
    (tmp_path / "cache").mkdir()
    with FileLock(tmp_path / "cache" / ".lock"):
        assert main(["cache", str(run)]) == 1
    assert "another cache is at work in" in capfd.readouterr().err
