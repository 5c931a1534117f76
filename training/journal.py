"""A file of what has been done, a JSON object a line: each is on the disk before the work goes on, and survives a SIGKILL."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


class Journal:
    """Appends from any thread, and from several processes: every line is one write to the end of the file.

    A line that was cut short by a crash or a full disk is passed over; what comes after it begins on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read = 0  # bytes that `news` has given out

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line and wait until it is on the disk. Raises OSError (disk full); then the entry was not added."""
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":
                        line = b"\n" + line
                if file.write(line) != len(line):
                    raise OSError(f"{self.path} could not be written to its end; is the disk full?")
                os.fsync(file.fileno())

    def news(self) -> list[dict[str, Any]]:
        """Entries that were added, by whomever, since the last call; all of them at the first."""
        with self._lock:
            if not self.path.is_file():
                return []
            with self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]  # the rest is still being written, or was cut short
            self._read += len(whole)
        entries = []
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                entries.append(entry)
        return entries
