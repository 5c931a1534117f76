"""Rows that an earlier call of a benchmark wrote: trainings may be done, measured and deleted one after the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training import ablate
from training.errors import UserError


def version_of(recipe: ablate.Recipe, name: str) -> str:
    """A hash of what a finished run is the result of. Raises UserError when a file that it names is missing."""
    return hashlib.sha256(ablate.mark_of(recipe, name).encode()).hexdigest()[:16]


def kept(
    path: Path | None, key: str, about: Mapping[str, Any], version: Callable[[str], str | None]
) -> dict[str, dict[str, Any]]:
    """The rows that `path` holds, by their `key`; none where there is no such file.

    Args:
        about: What the file says of all its rows: on which pairs they were judged, and how they were sampled.
        version: Of the row of a name, now; None for a name that is none.

    Raises:
        UserError: a file of other pairs or another sampler, with a row of another version, or of something else: what it
            holds may not come again.
    """
    if path is None or not path.exists():
        return {}
    another = "name another file, or delete this one"
    try:
        found = json.loads(path.read_text("utf-8"))
        rows = {row[key]: row for row in found["rows"]}
        says = {name: found.get(name) for name in about}
        versions = {name: row["version"] for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--json {path} can't be read ({error!r}), expected what an earlier call wrote; {another}") from error
    if says != about:
        got, expected = (", ".join(f"{name} {one[name]}" for name in about) for one in (says, about))
        raise UserError(f"--json {path} holds rows of {got}, expected {expected}; {another}")
    old = [name for name, made_of in versions.items() if made_of != version(name)]
    if old:
        raise UserError(f"--json {path} holds a row {old[0]} of another version of the recipe; {another}, or take the row out")
    return rows
