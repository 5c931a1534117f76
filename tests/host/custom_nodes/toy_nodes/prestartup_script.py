"""Runs before the host imports anything: hides what only training needs, as on the machine of someone who animates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

HIDDEN = {"diffusers", "peft", "accelerate", "ray", "decord"}


class WithoutTraining(PathFinder):
    """Finds what PathFinder finds, less the packages of training: to whoever asks, they are not installed."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in HIDDEN else super().find_spec(fullname, path, target)


sys.meta_path[:] = [WithoutTraining if finder is PathFinder else finder for finder in sys.meta_path]
