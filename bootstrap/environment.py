"""The virtual environment in the checkout: made once, filled with pinned packages, left alone while nothing changed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import ROOT, SetupError
from .host import SHA256, own_host

TORCH = Path("requirements/torch.txt")
LOCK = Path("requirements/lock.txt")
OURS = (Path("requirements.txt"), Path("requirements/dev.txt"), Path("requirements/training.txt"))

_WINDOWS_CUDA = "https://download.pytorch.org/whl/cu130"


def venv_python(root: Path = ROOT) -> Path:
    """The environment's interpreter."""
    return root / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def stamp(files: Iterable[Path], facts: Iterable[str]) -> str:
    """A digest that changes when any file's content or any fact does; a missing file raises FileNotFoundError."""
    digest = hashlib.sha256()
    for part in [*(path.read_bytes() for path in files), *(fact.encode() for fact in facts)]:
        digest.update(hashlib.sha256(part).digest())  # hashed apart, so that nothing moves from one part to the next
    return digest.hexdigest()


def torch_index(environ: Mapping[str, str] = os.environ) -> str | None:
    """The package index to take torch from; None for pip's own."""
    given = environ.get("DREAMACTOR_TORCH_INDEX", "").strip()
    if given:
        return given
    # PyPI's torch for Windows is without CUDA
    return _WINDOWS_CUDA if sys.platform == "win32" and shutil.which("nvidia-smi") else None


def make_venv(root: Path = ROOT) -> Path:
    """Make the environment unless a working one is there; returns its interpreter."""
    python = venv_python(root)
    if python.exists() and subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return python
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise SetupError(
                f"this Python ({sys.executable}) has no module {module}, expected a complete Python "
                f"{platform.python_version()}; on Debian or Ubuntu: apt install python3-venv, elsewhere install Python "
                f"from python.org"
            )
    print(f"making a virtual environment in {root / '.venv'}", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(root / ".venv")]).returncode:
        raise SetupError(
            f"could not make {root / '.venv'}, see above; check that the folder is writable and the disk not full"
        )
    return python


def _pip_install(python: Path, *arguments: str | Path) -> None:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *map(str, arguments)]
    if subprocess.run(command).returncode:
        raise SetupError(
            f"pip could not install the requirements, see its message above (the command was: {' '.join(command)}). "
            f"Check the network and that 8 GB of disk are free, and run again: it goes on where it stopped"
        )


def install(host: Path, root: Path = ROOT) -> bool:
    """Bring the environment to what the requirement files and the host ask for.

    Torch goes first, so that the host's unpinned `torch` is met by it; then everything else in one resolution.
    Our own host is constrained to the tested set. Another ComfyUI keeps its own pins: there only torch is constrained.

    Returns:
        False when the stamp says that there is nothing to do.
    """
    config, mark = root / ".venv" / "pyvenv.cfg", root / ".venv" / ".dreamactor-stamp"
    index = torch_index()
    host_requirements = host / "requirements.txt"
    requirements = [*(root / path for path in (TORCH, LOCK, *OURS)), host_requirements]

    facts = [str(root), SHA256 if host == own_host(root) else str(host), index or "", sys.platform]

    def wanted() -> str:
        return stamp([*requirements, config], facts)

    index_file = root / ".venv" / ".dreamactor-torch-index"
    if mark.is_file() and venv_python(root).exists() and mark.read_text() == wanted():
        return False
    python = make_venv(root)
    mark.unlink(missing_ok=True)
    print("installing the requirements (the first time: several GB, some minutes)", flush=True)
    # torch's own index has torch for every platform, but not the locked version of each package that torch needs
    indices = ["--index-url", index, "--extra-index-url", "https://pypi.org/simple"] if index else []
    if index_file.is_file() and index_file.read_text() != (index or ""):
        # the same version of torch for another device: to pip it is installed already
        _pip_install(python, *indices, "--force-reinstall", "--no-deps", "-r", root / TORCH)
    index_file.write_text(index or "")
    _pip_install(python, *indices, "-c", root / LOCK, "-r", root / TORCH)
    constraints = LOCK if host == own_host(root) else TORCH
    ours = [argument for path in OURS for argument in ("-r", root / path)]
    _pip_install(python, "-c", root / constraints, "-r", host_requirements, *ours)
    mark.write_text(wanted())
    return True
