"""What can go wrong between frames and poses."""

from __future__ import annotations


class ExtractError(RuntimeError):
    """No poses were made. The message says what was got, what was expected and what to do."""


class NobodyError(ExtractError):
    """Nobody was found in a clip."""
