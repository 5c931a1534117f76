"""What a user can put right: printed as one line, without a traceback."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError that mean that there is no room."""


class UserError(ValueError):
    """A wrong input. The message says what was got, what was expected and what to do."""
