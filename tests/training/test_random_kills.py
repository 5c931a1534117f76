"""SIGKILL at random moments: whatever a verb was at, the same command then ends with the bytes of an unbroken run.

One moment a verb; as many as the environment variable DREAMACTOR_KILLS says when it is set, and other ones each time, unless
DREAMACTOR_KILLS_SEED is what a failed test has named as its seed:

    DREAMACTOR_KILLS=20 python3 run.py test tests/training/test_random_kills.py
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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
from drawn_clips import write_clips
from scoring import Always, environment  # noqa: F401 - a fixture is used by being here
from stand_ins import Request, StandIn, says
from verb_runs import MADE, PAIRS, cache_run, digests, score_run, synthesize_run, train_run

from training.__main__ import VERBS, main
from training.config import GRADES
from training.synthesize.records import Folder

KILLS = int(os.environ.get("DREAMACTOR_KILLS", "1"))
SEED = int(os.environ.get("DREAMACTOR_KILLS_SEED") or int.from_bytes(os.urandom(4), "big"))
TRIES = 4  # to strike a run before its end
pytestmark = pytest.mark.timeout(900 * (1 + KILLS))
Check = Callable[[], None]
"""What must hold of a run that was gone on with, and was noted when it was killed."""


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


def _run(verb: str, path: str, variables: dict[str, str]) -> None:
    os.environ.clear()  # those of the server of processes are of the time when it was started
    os.environ.update(variables)
    if hasattr(os, "setsid"):
        os.setsid()  # so that whatever it starts can be found, and ended with it
    sys.exit(main([verb, path]))


def _started(verb: str, path: Path) -> BaseProcess:
    """The verb in a process whose imports are done, so that moments fall into its work."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        verbs = [VERBS[name][0] for name in ("cache", "train", "score", "synthesize")]
        context.set_forkserver_preload(["torch", "diffusers", *verbs])
    process = context.Process(target=_run, args=(verb, str(path), dict(os.environ)))
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


def finished_clips(out: Path) -> list[Path]:
    """Clips of `synthesize` that a run need not make again: those with their record."""
    folder = Folder(out / "synthetic")
    records = (folder.finished(path.stem) for path in folder.path.glob("units/*/*.json"))
    return [folder.path / str(record["clip"]) for record in records if record is not None]


def unwritten(kept: list[Path]) -> Check:
    """Files of a broken-off run that must not be written again."""
    written = {path: path.stat().st_mtime_ns for path in kept}

    def check() -> None:
        assert {path: path.stat().st_mtime_ns for path in written} == written

    return check


def timed(verb: str, path: Path) -> float:
    """Seconds that a run takes to its end."""
    begun = time.monotonic()
    process = _started(verb, path)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def killed_and_resumed(
    verb: str, make: Callable[[Path], Path], folder: Path, noted: Callable[[Path], Check] = lambda out: lambda: None
) -> None:
    """`noted`: called with the folder of a run that was killed, before the run is gone on with; what it returns, after."""

    def prepared(name: str) -> tuple[Path, Path]:
        out = folder / name
        out.mkdir()
        return out, make(out)

    print(f"DREAMACTOR_KILLS_SEED={SEED} draws the same shares of a run again")
    patterns, rng = MADE[verb], np.random.default_rng(SEED)
    out, path = prepared("whole")
    timed(verb, path)
    shortest = timed(verb, path)  # finds all done; by now the server of processes is warm
    whole = digests(out, patterns)
    assert all(digests(out, (pattern,)) for pattern in patterns), "each has files to compare"
    out, path = prepared("timed")
    longest = timed(verb, path)
    assert digests(out, patterns) == whole, "two unbroken runs agree"
    for moment in range(KILLS):
        for attempt in range(TRIES):
            out, path = prepared(f"{moment}-{attempt}")
            least, most = 0.5 * min(shortest, longest), 0.95 * longest / max(1, attempt)
            begun = time.monotonic()
            process = _started(verb, path)
            process.join(rng.uniform(least, max(least, most)))
            taken = time.monotonic() - begun
            if _kill(process, with_children=verb == "synthesize"):  # Ray ends its own in its own time
                break
            assert process.exitcode == 0
            longest = min(longest, taken)  # on a busy machine no two runs take equally long
        else:
            pytest.fail(f"{verb} was over before it was killed, {TRIES} times")
        print(f"killed after {taken:.2f} of {longest:.2f} s")
        check = noted(out)
        timed(verb, path)
        assert digests(out, patterns) == whole
        check()
    print(f"{verb}: killed {KILLS} times while it was at work; a run takes {longest:.1f} s")


def test_cache(clips: Path, tmp_path: Path) -> None:
    killed_and_resumed("cache", lambda out: cache_run(clips, out), tmp_path)


def test_train(cached: Path, tmp_path: Path) -> None:
    killed_and_resumed("train", lambda out: train_run(cached, out), tmp_path)


def test_score(tmp_path: Path) -> None:
    """With a service, which is asked for what it has not answered, and for nothing else: an answer is paid for."""
    served = "openai_compatible"

    def answers(stand_in: StandIn, handler: object, request: Request) -> None:
        time.sleep(0.2)
        score = 1 + int(hashlib.sha256(json.dumps(request.body).encode()).hexdigest(), 16) % 5
        says(json.dumps({"score": score}))(stand_in, handler, request)

    with StandIn(served) as service:
        service.script = Always(answers)
        settings = {"service": served, "model": "grader", "base_url": service.url, "dimensions": list(GRADES)}

        def noted(out: Path) -> Check:
            time.sleep(1)  # what the killed one has sent may still be on its way
            kept, asked = list(out.glob("run/scores/answers/*.json")), len(service.requests)

            def check() -> None:
                again, left = len(service.requests) - asked, PAIRS * len(GRADES) - len(kept)
                assert again == left

            return check

        killed_and_resumed("score", lambda out: score_run(out, **settings), tmp_path, noted)
    grades = [json.loads(line)["scores"] for line in (tmp_path / "whole" / "run" / "scores" / "manifest.jsonl").open()]
    assert len({grade[name] for grade in grades for name in GRADES}) > 1, "another grade would be seen"


def test_synthesize(tmp_path: Path) -> None:
    killed_and_resumed("synthesize", synthesize_run, tmp_path, lambda out: unwritten(finished_clips(out)))
    assert len(finished_clips(tmp_path / "whole")) == PAIRS
