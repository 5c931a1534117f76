"""What a user can put right: printed as one line, without a traceback."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError that mean that there is no room."""

_OF_DEVICE = ("CUDA error", "HIP error")


def of_device(said: str) -> bool:
    """Whether what torch said is of a GPU's own failure, after which nothing works in that process any more. That there is not
    enough memory it says in other words."""
    return any(words in said for words in _OF_DEVICE)


class UserError(ValueError):
    """A wrong input. The message says what was got, what was expected and what to do."""
