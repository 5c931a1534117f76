"""What a user can put right: printed as one line, without a traceback."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError that mean that there is no room."""

_OF_DEVICE = ("CUDA error", "HIP error")
_FOR_GOOD = (
    "illegal memory access", "misaligned address", "illegal instruction", "device-side assert", "launch failure", "ECC error",
    "hardware", "unknown error",
)  # fmt: skip


def of_device(said: str) -> bool:
    """Whether what torch said is of a failure of a GPU's context, after which nothing works in that process any more. Other errors
    of CUDA, as that there is not enough memory, are of one call."""
    return any(words in said for words in _OF_DEVICE) and any(words in said for words in _FOR_GOOD)


class UserError(ValueError):
    """A wrong input. The message says what was got, what was expected and what to do."""
