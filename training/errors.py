"""What a user can put right: printed as one line, without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A wrong input. The message says what was got, what was expected and what to do."""
