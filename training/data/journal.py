"""What is finished, one line a unit: whoever is interrupted goes on after the last of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamactor_core.extract.weights import sha256_of
from training.data.dropping import Dropped
from training.data.unit import Job, Outcome, Unit
from training.errors import UserError
from training.journal import Journal as Lines
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
        self._lines = Lines(self._path)
        try:
            self._entries = {str(entry.get("key")): entry for entry in self._lines.news()}
        except OSError as error:
            raise UserError(f"{self._path} can't be used ({error}); see that it may be read and written") from error

    def _key(self, unit: Unit) -> str:
        return hashlib.sha256(f"{self._digest}\0{unit.name}\0{unit.identity}".encode()).hexdigest()

    def finished(self, unit: Unit) -> Outcome | None:
        """What became of a unit, None when it is still to be made: it, its files or the settings are others, or its clips are gone
        or were written over, as by other settings."""
        entry = self._entries.get(self._key(unit))
        if entry is None:
            return None
        samples = [self._opened(line) for line in entry["samples"]]
        # what an entry does not say of its clips, as earlier ones do not, is not known
        written = entry.get("written", {"stamp": None, "sha256": None})
        if not _same(unit.files, entry) or not _same(_outputs(samples), written):
            return None
        return Outcome(samples, [Dropped(**one) for one in entry["dropped"]], entry["notes"], entry["sha256"])

    def _opened(self, line: str) -> Sample:
        sample = Sample.model_validate_json(line)
        found = {name: self._folder / getattr(sample, name) for name in PATHS if getattr(sample, name) is not None}
        return sample.model_copy(update=found)

    def note(self, unit: Unit, outcome: Outcome, stamp: list[Any]) -> None:
        """Note that a unit is finished. `stamp` is that of its files before it was made."""
        outputs = _outputs(outcome.samples)
        entry = {
            "key": self._key(unit),
            "unit": unit.name,
            "stamp": stamp,
            "sha256": outcome.sha256,
            "samples": [to_line(sample, self._folder) for sample in outcome.samples],
            "dropped": [one.as_json() for one in outcome.dropped],
            "notes": outcome.notes,
            "written": {"stamp": _stamp(outputs), "sha256": [sha256_of(path) for path in outputs]},
        }
        try:
            self._lines.append(entry)
        except OSError as error:
            raise UserError(
                f"{self._path} can't be written ({error.strerror or error}); make room and give the same command again"
            ) from error


def _outputs(samples: Sequence[Sample]) -> list[Path]:
    """The files of samples."""
    return [path for sample in samples for name in PATHS if (path := getattr(sample, name)) is not None]


def _same(files: Sequence[Path], noted: Mapping[str, Any]) -> bool:
    """Whether files are as they were: the times of files change when they are copied, what is in them need not."""
    if noted["stamp"] == _stamp(files):
        return True
    return noted["sha256"] == [sha256_of(path) if path.is_file() else "" for path in files]


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
