"""Who has decided what, in which order, and what of it was taken back."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from training import manifest
from training.errors import UserError
from training.journal import Journal
from training.manifest import Sample


class Decisions:
    """The decisions of a folder. Each is in its journal before it counts; `write` puts them into manifests.

    The state is always what the whole journal says, from its first line on: so several browsers, and several servers on one
    folder, see each other's decisions and lose none. A browser takes back its own decisions only, the last one first.
    """

    def __init__(self, folder: Path, samples: Sequence[Sample]) -> None:
        self.folder = folder
        self.samples = {sample.id: sample for sample in samples}
        self._journal = Journal(folder / "journal.jsonl")
        self._lock = threading.RLock()
        self._writing = threading.Lock()  # its own: a decision need not wait for the manifests
        self._entries: list[dict[str, object]] = []
        self._undone: set[int] = set()
        self._of: dict[str, list[int]] = {}
        self._lines: dict[str, tuple[bool | None, str]] = {}  # of the manifest, and the decision that each tells of
        self.changes = 0  # grows with every entry
        self.refresh()

    def refresh(self) -> None:
        """Read what was added to the journal."""
        with self._lock:
            for entry in self._journal.news():
                self._take(entry)

    def _take(self, entry: dict[str, object]) -> None:
        sample = self.samples.get(str(entry.get("id")))
        if sample is None or entry.get("of", "") != sample.driving_sha256:
            return  # of a clip that is not in this manifest, or was made anew since
        self.changes += 1
        by, of = str(entry.get("by", "")), self._of.setdefault(sample.id, [])
        if entry.get("undo"):
            mine = [n for n in of if n not in self._undone and self._entries[n]["by"] == by]
            self._undone.update(mine[-1:])
        elif isinstance(entry.get("accepted"), bool):
            of.append(len(self._entries))
            self._entries.append({"id": sample.id, "by": by, "accepted": entry["accepted"]})

    def of(self, name: str) -> bool | None:
        """What counts for a sample: the last decision that was not taken back, or what its manifest says, or None."""
        with self._lock:
            left = [n for n in self._of.get(name, ()) if n not in self._undone]
            return bool(self._entries[left[-1]]["accepted"]) if left else self.samples[name].accepted

    def decide(self, name: str, accepted: bool, by: str) -> None:
        """Accept or reject. Raises KeyError for an id that is not there, OSError when the disk is full."""
        sample = self.samples[name]
        with self._lock:
            self._journal.append({"id": name, "of": sample.driving_sha256, "accepted": accepted, "by": by})
            self.refresh()

    def undo(self, by: str) -> str | None:
        """Take back the last decision of that browser. Returns its sample, None where it has none left."""
        with self._lock:
            self.refresh()
            mine = [n for n, entry in enumerate(self._entries) if entry["by"] == by and n not in self._undone]
            if not mine:
                return None
            name = str(self._entries[mine[-1]]["id"])
            self._journal.append({"id": name, "of": self.samples[name].driving_sha256, "undo": True, "by": by})
            self.refresh()
            return name

    def all(self) -> dict[str, bool | None]:
        """Every sample's, in their order."""
        return self.state()[1]

    def state(self) -> tuple[int, dict[str, bool | None]]:
        """`changes` and what is then decided, of one moment."""
        with self._lock:
            self.refresh()
            return self.changes, {name: self.of(name) for name in self.samples}

    def write(self) -> None:
        """`manifest.jsonl` with all samples and their decisions, `kept.jsonl` with those accepted. Raises UserError (disk full).

        The first call makes every sample's line, later ones those of samples that were decided on since.
        One thread at a time, from its look at the decisions on: an older state must not come to lie over a newer one.
        """
        with self._writing:
            decided = self.all()
            lines = [self._line(name, accepted) for name, accepted in decided.items()]
            kept = [line for line, accepted in zip(lines, decided.values(), strict=True) if accepted]
            try:
                manifest.write_lines(self.folder / "manifest.jsonl", lines)
                manifest.write_lines(self.folder / "kept.jsonl", kept)
            except OSError as error:
                raise UserError(f"{self.folder} can't be written to ({error}); the decisions are in its journal") from error

    def _line(self, name: str, accepted: bool | None) -> str:
        known = self._lines.get(name)
        if known is None or known[0] is not accepted:
            sample = self.samples[name].model_copy(update={"accepted": accepted})
            known = self._lines[name] = accepted, manifest.to_line(sample, self.folder)
        return known[1]
