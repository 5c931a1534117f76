"""Weight files: found where users keep them, or fetched once they asked for it, and told by their sha256."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from .catalogue import Source, WeightFile
from .errors import ExtractError

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all. Raises to stop."""

_CHUNK = 1 << 20
_LARGEST = 2 << 30  # bytes; several times the largest file of the catalogue
_CONNECT, _SILENCE = 15.0, 60.0  # seconds
_TICK = 0.1  # seconds between looks at the user
_REDIRECTS = 5
_MEMBER = "end2end.onnx"  # the network in an archive, under some folders


def find(file: WeightFile, folders: Iterable[Path]) -> Path | None:
    """The file in one of the folders or one level below, under any of its names."""
    for folder in folders:
        for name in (file.name, *file.aliases):
            if (folder / name).is_file():
                return folder / name
            with contextlib.suppress(OSError):  # a folder that is not there or may not be read holds nothing for us
                below = sorted(path for path in folder.glob(f"*/{name}") if path.is_file())
                if below:
                    return below[0]
    return None


@functools.lru_cache(maxsize=32)
def _digest(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The file's sha256; computed again only when the file changed."""
    status = path.stat()
    return _digest(str(path), status.st_size, status.st_mtime_ns)


def missing(files: Sequence[WeightFile], folder: Path, or_else: str) -> ExtractError:
    """The error for files that are nowhere: which, where they belong, where they come from, and what else one can do."""
    listed = "".join(
        f"\n- {file.name} ({file.size / 1e6:.0f} MB, sha256 {file.sha256[:12]}...), from {file.sources[0].url}"
        + (f", where it is {_MEMBER} inside the zip: rename it" if file.sources[0].archive_sha256 else "")
        for file in files
    )
    return ExtractError(
        f"{len(files)} weight file(s) are missing, expected in {folder}:{listed}\nPut them there, or {or_else}"
    )


def fetch(file: WeightFile, folder: Path, progress: Progress | None = None) -> Path:
    """Download a file into a folder, in which it appears complete and checked or not at all.

    Raises:
        ExtractError: no address gave it; with what each of them said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    troubles = []
    for source in file.sources:
        try:
            return _fetch_from(source, file, folder, progress)
        except (ExtractError, OSError, zipfile.BadZipFile) as error:  # requests' own errors are OSErrors
            troubles.append(f"{urlsplit(source.url).hostname}: {_first_line(error)}")
    raise ExtractError(
        f"{file.name} could not be fetched ({'; '.join(troubles)}). Check the network, or put the file into {folder} yourself; "
        f"it comes from {file.sources[0].url}"
    )


def _fetch_from(source: Source, file: WeightFile, folder: Path, progress: Progress | None) -> Path:
    # of a download that was given up its thread may hold the file for a while, which some systems do not let go
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-", ignore_cleanup_errors=True) as made:
        temporary = Path(made)
        arrived = temporary / "arrived"
        _download(source.url, arrived, progress)
        if source.archive_sha256:
            _check(arrived, source.archive_sha256, f"the archive of {file.name}")
            arrived = _unpack(arrived, temporary / "unpacked")
        _check(arrived, file.sha256, file.name)
        os.replace(arrived, folder / file.name)
    return folder / file.name


def _check(path: Path, expected: str, what: str) -> None:
    got = sha256_of(path)
    if got != expected:
        raise ExtractError(f"{what} has sha256 {got}, expected {expected}; it is damaged or another file and was thrown away")


def _unpack(archive: Path, target: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        members = [member for member in opened.infolist() if member.filename.rsplit("/", 1)[-1] == _MEMBER]
        if len(members) != 1 or members[0].file_size > _LARGEST:
            raise ExtractError(f"the archive holds {len(members)} files {_MEMBER}, expected one of at most {_LARGEST >> 30} GiB")
        with opened.open(members[0]) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
    return target


@dataclass
class _Arriving:
    """A download under way, seen from two threads."""

    done: int = 0
    total: int = 0
    error: Exception | None = None
    stopped: bool = False


def _download(url: str, target: Path, progress: Progress | None) -> None:
    """In a thread of its own, so that whoever waits can give up at any moment, whatever the network does."""
    state = _Arriving()
    thread = threading.Thread(target=_receive, args=(url, target, state), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_TICK)
            if progress is not None:
                progress(state.done, max(state.total, state.done, 1))
    finally:
        state.stopped = True
    if state.error is not None:
        raise state.error


def _receive(url: str, target: Path, state: _Arriving) -> None:
    try:
        with _answer(url) as answer, target.open("wb") as out:
            state.total = int(answer.headers.get("Content-Length") or 0)
            for chunk in answer.iter_content(_CHUNK):
                if state.stopped:
                    return
                state.done += out.write(chunk)
                if state.done > _LARGEST:
                    raise ExtractError(f"more than {_LARGEST >> 30} GiB arrived; that is not the file")
            if state.total and state.done != state.total:
                raise ExtractError(f"{state.done} of {state.total} bytes arrived")
    except Exception as error:  # raised again where somebody waits
        state.error = error


@contextlib.contextmanager
def _answer(url: str) -> Iterator[Any]:
    import requests  # the host has it; not at start-up

    with requests.Session() as session:
        for _ in range(_REDIRECTS + 1):
            _require_https(url)
            answer = session.get(
                url,
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT, _SILENCE),
                headers={"Accept-Encoding": "identity"},  # so that the stated length is that of the file
            )
            with answer:
                if answer.is_redirect:
                    url = urljoin(url, answer.headers["Location"])
                    continue
                if answer.status_code != 200:
                    raise ExtractError(f"answered with status {answer.status_code}")
                yield answer
                return
    raise ExtractError(f"more than {_REDIRECTS} redirects")


def _require_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise ExtractError(f"leads to {urlsplit(url).scheme}://{urlsplit(url).hostname}, expected https")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
