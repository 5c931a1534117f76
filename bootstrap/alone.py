"""One set-up at a time: two that install into the same environment would leave it broken."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import ROOT, SetupError

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What the systems say when another process has the lock; the last two are Windows'."""


def _lock(file: int) -> None:
    """Raises OSError: of _HELD when another process has it, else when it cannot be locked. The system frees it when the process
    ends, however it ends."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def only_one(root: Path = ROOT) -> Iterator[None]:
    """Hold the checkout's set-up lock. Raises SetupError when another run.py is setting up there, or it cannot be locked."""
    path = root / ".setup.lock"
    try:
        file = os.open(path, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error.strerror}); run.py needs a folder that it may write to") from error
    try:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _HELD:
                raise SetupError(f"another run.py is setting up {root}; wait until it is done and run this again") from None
            raise SetupError(
                f"{root} cannot be locked ({error.strerror}): its file system cannot lock files, which keeps two set-ups apart; "
                f"move the checkout to a local disk"
            ) from error
        yield
    finally:
        with suppress(OSError):
            os.close(file)
