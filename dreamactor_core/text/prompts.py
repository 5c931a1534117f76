"""The prompts: text files that a user may edit, one a task and language."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .errors import TextError

Language = Literal["en", "zh"]
Task = Literal["motion", "appearance", "fusion"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
TASKS: tuple[Task, ...] = get_args(Task)

SHIPPED = Path(__file__).parent / "prompts"

_PLACES = {"motion": {"frames"}, "appearance": set(), "fusion": {"motion", "appearance"}, "repair": {"problems"}}
"""What is filled into each file, written there in braces."""

_FRAMES = {
    "en": ("1 frame", "{count} frames, {fps:g} frames per second"),
    "zh": ("1帧画面", "{count}帧画面,每秒{fps:g}帧"),
}


def frames_in_words(count: int, fps: float, language: Language) -> str:
    """How many frames there are and how fast they follow each other."""
    one, many = _FRAMES[language]
    return one if count == 1 else many.format(count=count, fps=fps)


@dataclass(frozen=True)
class Prompts:
    """The four prompts of one language."""

    language: Language
    texts: Mapping[str, str]

    @property
    def version(self) -> str:
        """Changes whenever a prompt is edited."""
        whole = "\0".join(f"{name}\0{self.texts[name]}" for name in sorted(self.texts))
        return hashlib.sha256(f"{self.language}\0{whole}".encode()).hexdigest()[:16]

    def fill(self, name: str, **values: str) -> str:
        """A prompt with its places filled; braces in the values stay as they are."""
        return re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), self.texts[name])


def load_prompts(language: Language, folders: Sequence[Path] = (SHIPPED,)) -> Prompts:
    """Read NAME.LANGUAGE.txt of each prompt from the first folder that has it.

    Raises:
        TextError: a file cannot be read as UTF-8, is empty, or lacks a place that must be filled.
    """
    texts = {}
    for name, places in _PLACES.items():
        file = f"{name}.{language}.txt"
        path = next((folder / file for folder in folders if (folder / file).is_file()), SHIPPED / file)
        try:
            text = path.read_text("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TextError(f"the prompt {path} cannot be read ({error}), expected a text file in UTF-8; save it again") from error
        missing = sorted(f"{{{place}}}" for place in places if f"{{{place}}}" not in text)
        if not text or missing:
            lack = f"has no {' and no '.join(missing)}" if text else "is empty"
            raise TextError(f"the prompt {path} {lack}; put it back, or delete the file if it is a copy of yours")
        texts[name] = text
    return Prompts(language, texts)


def version_of(language: Language | None, folders: Sequence[Path] = (SHIPPED,)) -> str:
    """The version of one language's prompts; None: of all, for who does not know the language yet.

    Raises:
        TextError: as `load_prompts`.
    """
    return " ".join(load_prompts(each, folders).version for each in ((language,) if language else LANGUAGES))
