"""What is finished, one line a unit: whoever is interrupted goes on after the last of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamactor_core.extract.weights import sha256_of
from headless.atomic import atomic
from training.data.dropping import Dropped
from training.data.unit import Job, Outcome, Unit
from training.errors import UserError
from training.manifest import PATHS, Sample, to_line

NAME = "journal.jsonl"


class Journal:
    """Outcomes of units on disk, for one folder and one set of settings.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, job: Job) -> None:
        self._folder, self._digest = job.folder, job.digest()
        self._path = job.folder / NAME
        self._entries = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        try:
            data = self._path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:  # whoever wrote it was stopped in the middle of a line
                with atomic(self._path) as partial:
                    partial.write_bytes(whole)
        except FileNotFoundError:
            return entries
        except OSError as error:
            raise UserError(f"{self._path} can't be used ({error}); see that it may be read and written") from error
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                entries[entry["key"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # its unit is made again
        return entries

    def _key(self, unit: Unit) -> str:
        return hashlib.sha256(f"{self._digest}\0{unit.name}\0{unit.identity}".encode()).hexdigest()

    def finished(self, unit: Unit) -> Outcome | None:
        """What became of a unit, None when it is still to be made: it, its files or the settings are others, or clips are gone."""
        entry = self._entries.get(self._key(unit))
        if entry is None:
            return None
        if entry["stamp"] != _stamp(unit.files):  # the times of files change when they are copied, what is in them need not
            hashes = [sha256_of(path) if path.is_file() else "" for path in unit.files]
            if hashes != entry["sha256"]:
                return None
        samples = [self._opened(line) for line in entry["samples"]]
        made = [path for sample in samples for name in PATHS if (path := getattr(sample, name)) is not None]
        if not all(path.is_file() for path in made):
            return None
        return Outcome(samples, [Dropped(**one) for one in entry["dropped"]], entry["notes"], entry["sha256"])

    def _opened(self, line: str) -> Sample:
        sample = Sample.model_validate_json(line)
        found = {name: self._folder / getattr(sample, name) for name in PATHS if getattr(sample, name) is not None}
        return sample.model_copy(update=found)

    def note(self, unit: Unit, outcome: Outcome, stamp: list[Any]) -> None:
        """Note that a unit is finished. `stamp` is that of its files before it was made."""
        entry = {
            "key": self._key(unit),
            "unit": unit.name,
            "stamp": stamp,
            "sha256": outcome.sha256,
            "samples": [to_line(sample, self._folder) for sample in outcome.samples],
            "dropped": [one.as_json() for one in outcome.dropped],
            "notes": outcome.notes,
        }
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"{self._path} can't be written ({error.strerror}); make room and give the same command again"
            ) from error


def _stamp(files: Sequence[Path]) -> list[Any]:
    """Size and time of change of each file, None of one that is not there."""
    found: list[Any] = []
    for path in files:
        try:
            status = path.stat()
            found.append([status.st_size, status.st_mtime_ns])
        except OSError:
            found.append(None)
    return found


def stamp(unit: Unit) -> list[Any]:
    """What tells quickly whether a unit's files are still the same."""
    return _stamp(unit.files)
