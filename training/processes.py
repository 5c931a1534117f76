"""Several processes of one run, and several runs in one folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from training.errors import UserError


def end_with_parent() -> None:
    """In a process of a pool: end when the one that started it ends, however it ends. Ctrl-C is the parent's to speak of."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextmanager
def alone(folder: Path, verb: str) -> Iterator[None]:
    """The only run of a verb in its folder, which is made: two would remove each other's half-written files.

    Raises:
        UserError: another one is at work there, or the folder can't be written to.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"another {verb} is at work in {folder}; wait for it, or give another `out`") from error
    except OSError as error:
        raise UserError(f"{folder} can't be written to ({error.strerror or error}); make room, or give another `out`") from error
    try:
        yield
    finally:
        lock.release()
