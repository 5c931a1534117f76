"""A verb whose files may not grow beyond a few bytes: the system refuses to write more, as it does when a disk is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
can_be_had = pytest.mark.skipif(sys.platform == "win32", reason="there a process cannot be given less room for its files")
_LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"
_HERE = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " + _LIMITED
# Ray itself needs files of some size, so that it is its workers, while they work, that have no room
_IN_WORKERS = f"""
from training.synthesize import worker

class Worker(worker.Worker):
    def run(self, package):
        {_LIMITED}
        return super().run(package)

worker.Worker = Worker
"""
_VERB = "\nimport sys; from training.__main__ import main; sys.exit(main(sys.argv[1:]))"


def without_room(verb: str, path: Path, room: int = 4096, in_workers: bool = False) -> str:
    """The verb's command, which must end as one that a user can put right: status 1 and words about room, which are returned.

    `room`: bytes of a file. `in_workers`: the workers of `synthesize` have no more, and the command itself has.
    """
    code = (_IN_WORKERS if in_workers else _HERE).format(room=room) + _VERB
    result = subprocess.run([sys.executable, "-c", code, verb, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1, result.stdout + result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said and "room" in said[-1] and "Traceback" not in result.stderr, result.stderr
    return said[-1]


def partial(folder: Path) -> list[Path]:
    """Files that are half-written."""
    return list(folder.rglob("*.part"))
