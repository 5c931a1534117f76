"""Source `folder`: videos with files of the same name beside them: NAME.txt is the caption, NAME.json holds the poses."""

from __future__ import annotations

from pathlib import Path

from dreamactor_core.extract.weights import sha256_of
from training.config import Config
from training.data.clips import VideoUnit
from training.data.dropping import Drop
from training.data.unit import Source, Unit
from training.errors import UserError

SUFFIXES = frozenset([".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"])
_BESIDE = {".txt", ".json"}


def find(config: Config) -> Source:
    """All videos below the folder, in the order of their names; hidden ones and the run's own results left out.

    Raises:
        UserError: there is no such folder, there is no video in it, or no video has the files that the settings ask for.
    """
    folder, data = config.data.folder, config.data
    if folder is None or not folder.is_dir():
        raise UserError(f"data.folder is {folder or 'not given'}, expected a folder of videos; name its place")
    out = config.out.resolve()
    files = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and out not in path.resolve().parents:
            files.append(path)
    videos = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not videos:
        raise UserError(f"there is no video in {folder} ({len(files)} other files), expected one of {' '.join(sorted(SUFFIXES))}")
    for wish, suffix, others in ((data.captions, ".txt", "describe, service or none"), (data.poses, ".json", "extract or none")):
        if wish == "file" and not any(path.with_suffix(suffix).is_file() for path in videos):
            key = "captions" if suffix == ".txt" else "poses"
            wanted = videos[0].with_suffix(suffix).name
            raise UserError(f"data.{key} is file, and no video in {folder} has one (such as {wanted}); set data.{key} to {others}")
    twins = _twins(videos)
    units: list[Unit] = [_unit(path, folder) for path in videos if path not in twins]
    known = {path.with_suffix("") for path in videos}
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    stray = [path for path in others if not (path.suffix in _BESIDE and path.with_suffix("") in known)]
    drop = Drop("not_a_video", f"expected the name to end in one of {' '.join(sorted(SUFFIXES))}, or a .txt or .json of a video")
    dropped = [drop.of(path.relative_to(folder).as_posix()) for path in stray]
    for path, first in twins.items():
        same = Drop("duplicate", f"its bytes are those of {first.relative_to(folder).as_posix()}")
        dropped.append(same.of(path.relative_to(folder).as_posix()))
    return Source(units, dropped)


def _twins(videos: list[Path]) -> dict[Path, Path]:
    """Videos whose bytes are those of an earlier one, and which. Only those of one size are read for it; empty ones are not it."""
    sizes: dict[int, list[Path]] = {}
    for path in videos:
        sizes.setdefault(path.stat().st_size, []).append(path)
    found: dict[Path, Path] = {}
    for size, paths in sizes.items():
        first: dict[str, Path] = {}
        for path in paths if size and len(paths) > 1 else ():
            earlier = first.setdefault(sha256_of(path), path)
            if earlier != path:
                found[path] = earlier
    return found


def _unit(path: Path, folder: Path) -> VideoUnit:
    return VideoUnit(path.relative_to(folder).as_posix(), path, poses=path.with_suffix(".json"), caption=path.with_suffix(".txt"))
