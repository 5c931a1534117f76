"""SIGKILL at random moments: whatever a verb was at, the same command then ends with the bytes of an unbroken run.

One moment a verb; as many as the environment variable DREAMACTOR_KILLS says when it is set:

    DREAMACTOR_KILLS=20 python3 run.py test tests/training/test_random_kills.py
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from drawn_clips import PLAIN, write_clips, write_run
from synthesis import draw, values
from synthetic_pairs import write_config, write_pairs

from training.__main__ import VERBS, main
from training.synthesize.records import Folder

KILLS = int(os.environ.get("DREAMACTOR_KILLS", "1"))
TRIES = 4  # to strike a run before its end
TRAIN = {
    "steps": 4, "batch": 2, "rank": 4, "every": 1, "compile": False, "sample_sheets": 0, "validate_on": 2, "ema": 0.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "clips"
    write_clips(folder, 6)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def cached(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cached")
    assert main(["cache", str(cache_run(clips, out))]) == 0
    return out / "cache"


def cache_run(clips: Path, out: Path) -> Path:
    cache = {"manifest": str(clips), "shard": 1, "validation_share": 0.34, "augment": PLAIN, "workers": 2}
    return write_run(out / "run.yaml", out, cache=cache)


def train_run(cached: Path, out: Path) -> Path:
    return write_run(out / "run.yaml", out, cache={"augment": PLAIN}, train=TRAIN | {"cache": str(cached)})


def score_run(out: Path) -> Path:
    write_pairs(out / "run" / "synthetic", 5)
    return write_config(out, score={"measures": ["flicker", "motion_flow"], "workers": 2})


def synthesize_run(out: Path) -> Path:
    draw(out / "clips")
    path = out / "run.yaml"
    path.write_text(yaml.safe_dump(values(out, same_kind=False, count=5, workers=2)), "utf-8")
    return path


def _run(verb: str, path: str) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # so that whatever it starts can be found, and ended with it
    sys.exit(main([verb, path]))


def _started(verb: str, path: Path) -> BaseProcess:
    """The verb in a process whose imports are done, so that moments fall into its work."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        verbs = [VERBS[name][0] for name in ("cache", "train", "score", "synthesize")]
        context.set_forkserver_preload(["torch", "diffusers", *verbs])
    process = context.Process(target=_run, args=(verb, str(path)))
    process.start()
    return process


def _kill(process: BaseProcess, with_children: bool) -> bool:
    """Kill it, alone or with its children; alone, see that what it started ends by itself. Returns whether it was at work."""
    if not process.is_alive():
        return False
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children if with_children else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.join()
    until = time.monotonic() + 60
    while (left := [child for child in children if _lives(child)]) and time.monotonic() < until:
        time.sleep(0.1)
    for child in left:
        child.kill()
    assert not left, f"{left} went on without the one that started them"
    return process.exitcode < 0  # by a signal, and not by an error of its own


def _lives(process: psutil.Process) -> bool:
    """One that has ended and was not asked for its status yet, a zombie, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _digests(out: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    found = sorted(path for pattern in patterns for path in out.glob(pattern) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def finished_clips(out: Path) -> list[Path]:
    """Clips of `synthesize` that a run need not make again: those with their record."""
    folder = Folder(out / "synthetic")
    records = (folder.finished(path.stem) for path in folder.path.glob("units/*/*.json"))
    return [folder.path / str(record["clip"]) for record in records if record is not None]


def killed_and_resumed(
    verb: str,
    make: Callable[[Path], Path],
    patterns: tuple[str, ...],
    folder: Path,
    kept: Callable[[Path], list[Path]] = lambda out: [],
) -> None:
    """`patterns`: of the files that must agree. `kept`: those of a broken-off run that must not be written again."""

    def prepared(name: str) -> tuple[Path, Path]:
        out = folder / name
        out.mkdir()
        return out, make(out)

    out, path = prepared("whole")
    for _ in range(2):  # the second, which finds all done, so that the server of processes is warm when the time is taken
        begun = time.monotonic()
        process = _started(verb, path)
        process.join()
        assert process.exitcode == 0
    shortest = time.monotonic() - begun
    whole = _digests(out, patterns)
    assert all(_digests(out, (pattern,)) for pattern in patterns), "each has files to compare"
    out, path = prepared("timed")
    begun = time.monotonic()
    process = _started(verb, path)
    process.join()
    longest = time.monotonic() - begun
    assert _digests(out, patterns) == whole, "two unbroken runs agree"
    rng = np.random.default_rng(0)
    for moment in range(KILLS):
        for attempt in range(TRIES):  # on a busy machine no two runs take equally long
            out, path = prepared(f"{moment}-{attempt}")
            process = _started(verb, path)
            process.join(rng.uniform(0.5 * shortest, 0.95 * longest) / (attempt + 1))
            if _kill(process, with_children=verb == "synthesize"):  # Ray ends its own in its own time
                break
        else:
            pytest.fail(f"{verb} was over before it was killed, {TRIES} times")
        written = {path: path.stat().st_mtime_ns for path in kept(out)}
        process = _started(verb, path)
        process.join()
        assert process.exitcode == 0
        assert _digests(out, patterns) == whole
        assert {path: path.stat().st_mtime_ns for path in written} == written
    print(f"{verb}: killed {KILLS} times while it was at work; a run takes {longest:.1f} s")


def test_cache(clips: Path, tmp_path: Path) -> None:
    killed_and_resumed("cache", lambda out: cache_run(clips, out), ("cache/**/*.safetensors",), tmp_path)


def test_train(cached: Path, tmp_path: Path) -> None:
    killed_and_resumed("train", lambda out: train_run(cached, out), ("train/*.safetensors",), tmp_path)


def test_score(tmp_path: Path) -> None:
    killed_and_resumed("score", score_run, ("run/scores/manifest.jsonl",), tmp_path)


def test_synthesize(tmp_path: Path) -> None:
    made = ("synthetic/manifest.jsonl", "synthetic/clips/**/*", "synthetic/units/**/*", "synthetic/references/*")
    killed_and_resumed("synthesize", synthesize_run, made, tmp_path, finished_clips)
    assert len(finished_clips(tmp_path / "whole")) == 5
