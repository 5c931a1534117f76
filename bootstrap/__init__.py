"""What runs before anything is installed: standard library only. Environment, ComfyUI host, and run.py's verbs."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""


class SetupError(Exception):
    """Something outside the program is not as needed. The message says what was got, what was expected, what to do."""
