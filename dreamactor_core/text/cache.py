"""Answers on disk, so that asking the same again costs nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

_log = logging.getLogger(__name__)


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """A name for a question: sha256 over all parts with their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


class AnswerCache:
    """A folder of answers, one small JSON file each. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, name: str) -> str | None:
        """The answer of that name. A file that cannot be read counts as none."""
        if self._folder is None:
            return None
        try:
            text = json.loads((self._folder / f"{name}.json").read_text("utf-8"))["text"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return text if isinstance(text, str) else None

    def put(self, name: str, text: str, **about: str) -> None:
        """Keep an answer; the file appears complete or not at all. A full disk loses the saving, not the answer."""
        if self._folder is None:
            return
        partial = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(prefix=f".{name[:8]}-", suffix=".part", dir=self._folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"text": text, **about}, file, ensure_ascii=False)
            os.replace(partial, self._folder / f"{name}.json")
        except OSError as error:
            _log.warning("DreamActor: the answer could not be kept in %s (%s)", self._folder, error)
            if partial is not None:
                Path(partial).unlink(missing_ok=True)
