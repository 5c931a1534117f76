"""run.py's parts that need no network: what is refused, what is repeated, what is not."""

from __future__ import annotations

import ast
import errno
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest

from bootstrap import SetupError, alone, environment
from bootstrap.alone import only_one
from bootstrap.environment import LOCK, OURS, TORCH, stamp, torch_index, venv_python
from bootstrap.host import PACK_NAME, extract, find_host, is_comfyui, link_pack, own_host, verify
from bootstrap.verbs import offer_assets

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "vendor/ComfyUI"


def archive(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """A .tar.gz with these files, or with ready-made members (links)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def raise_(error: Exception) -> NoReturn:
    """`raise`, where an expression is wanted."""
    raise error


def comfyui(folder: Path) -> Path:
    """A folder that looks like a ComfyUI checkout."""
    for name in ("comfy", "custom_nodes"):
        (folder / name).mkdir(parents=True)
    for name in ("main.py", "nodes.py", "requirements.txt"):
        (folder / name).write_text("")
    return folder


# the archive


def test_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host.tar.gz"
    path.write_bytes(b"good")
    good = hashlib.sha256(b"good").hexdigest()
    verify(path, good)
    path.write_bytes(b"tampered")
    with pytest.raises(SetupError, match=rf"got sha256 {hashlib.sha256(b'tampered').hexdigest()}, expected {good}"):
        verify(path, good)


def test_only_the_wanted_folder_is_unpacked(tmp_path: Path) -> None:
    members = {
        "pkg-1/setup.py": b"no",
        "pkg-1/vendor/ComfyUI-else/x.py": b"no",
        "pkg-1/vendor/ComfyUI/main.py": b"main",
        "pkg-1/vendor/ComfyUI/comfy/sd.py": b"sd",
    }
    target = tmp_path / "out" / "ComfyUI"
    extract(archive(tmp_path / "a.tar.gz", members), INSIDE, target)
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == {"main.py": b"main", "comfy/sd.py": b"sd"}
    assert [p.name for p in target.parent.iterdir()] == ["ComfyUI"], "temporary folders were left"


@pytest.mark.parametrize(
    "name",
    [
        "pkg-1/vendor/ComfyUI/../../../escaped.py",
        "pkg-1/../escaped.py",
        "/escaped.py",
        "pkg-1/vendor/ComfyUI/..\\..\\escaped.py",
        "pkg-1/vendor/ComfyUI/C:escaped.py",
    ],
)
def test_a_member_that_would_land_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.tar.gz", {"pkg-1/vendor/ComfyUI/main.py": b"main", name: b"bad"})
    with pytest.raises(SetupError, match="expected only paths inside"):
        extract(path, INSIDE, tmp_path / "in" / "deep" / "ComfyUI")
    assert not list(tmp_path.rglob("*escaped*"))
    assert not (tmp_path / "in" / "deep" / "ComfyUI").exists(), "half an archive was left behind"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("pkg-1/vendor/ComfyUI/models")
    link.type, link.linkname = kind, "/etc"
    with pytest.raises(SetupError, match="link or a device"):
        extract(archive(tmp_path / "a.tar.gz", {"link": link}), INSIDE, tmp_path / "ComfyUI")


def test_an_archive_without_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no folder vendor/ComfyUI"):
        extract(archive(tmp_path / "a.tar.gz", {"pkg-1/main.py": b""}), INSIDE, tmp_path / "ComfyUI")


# the host


def test_comfyui_path_is_taken_or_refused_by_name(tmp_path: Path) -> None:
    mine = comfyui(tmp_path / "mine")
    assert find_host({"COMFYUI_PATH": str(mine)}, tmp_path) == mine
    with pytest.raises(SetupError, match=r"COMFYUI_PATH is '.*elsewhere', which does not exist; expected"):
        find_host({"COMFYUI_PATH": str(tmp_path / "elsewhere")}, tmp_path)
    with pytest.raises(SetupError, match="is not a ComfyUI checkout"):
        find_host({"COMFYUI_PATH": str(tmp_path)}, tmp_path)
    with pytest.raises(SetupError, match=r"run\.py setup"):
        find_host({}, tmp_path)


def test_the_host_of_the_tests_is_one() -> None:
    assert is_comfyui(find_host())


def test_the_pack_is_linked_once(tmp_path: Path) -> None:
    host, checkout = comfyui(tmp_path / "host"), tmp_path / "checkout"
    checkout.mkdir()
    link = link_pack(host, checkout)
    assert link == host / "custom_nodes" / PACK_NAME
    assert link.samefile(checkout)
    assert link_pack(host, checkout) == link
    assert len(list((host / "custom_nodes").iterdir())) == 1


def test_a_clone_inside_custom_nodes_needs_no_link(tmp_path: Path) -> None:
    host = comfyui(tmp_path / "host")
    checkout = host / "custom_nodes" / "some-name"
    checkout.mkdir()
    assert link_pack(host, checkout) == checkout
    assert len(list((host / "custom_nodes").iterdir())) == 1


def test_another_copy_of_the_pack_is_not_replaced(tmp_path: Path) -> None:
    host, checkout, other = comfyui(tmp_path / "host"), tmp_path / "checkout", tmp_path / "other"
    checkout.mkdir()
    installed = host / "custom_nodes" / PACK_NAME
    installed.mkdir()
    with pytest.raises(SetupError, match="another copy of this pack"):
        link_pack(host, checkout)
    installed.rmdir()
    other.mkdir()
    link_pack(host, other)
    with pytest.raises(SetupError, match="another copy of this pack"):
        link_pack(host, checkout)
    other.rmdir()  # now the link dangles, which is of use to nobody
    assert link_pack(host, checkout).samefile(checkout)


def test_a_copied_checkout_takes_over_its_own_host(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    host = comfyui(own_host(copy))
    link_pack(host, original)
    assert link_pack(host, copy).samefile(copy)


# the environment


def test_the_stamp_follows_every_file_and_fact(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("torch==1")
    two.write_text("numpy==2")
    first = stamp([one, two], ["linux", ""])
    assert stamp([one, two], ["linux", ""]) == first
    assert stamp([one, two], ["linux", "x"]) != first
    assert stamp([two, one], ["linux", ""]) != first
    one.write_text("torch==1n")
    two.write_text("umpy==2")
    assert stamp([one, two], ["linux", ""]) != first
    two.unlink()
    with pytest.raises(FileNotFoundError):
        stamp([one, two], ["linux", ""])


def test_torch_comes_from_the_index_that_is_asked_for() -> None:
    assert torch_index({"DREAMACTOR_TORCH_INDEX": " https://example.org/whl "}) == "https://example.org/whl"


def test_the_nodes_requirements_pin_nothing_of_comfyui_and_match_pyproject() -> None:
    import tomllib

    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    wanted = [line for line in lines if line]
    assert wanted == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [line.split(">=")[0] for line in wanted] == ["opencv-python-headless"]


def test_the_lock_pins_every_requirement() -> None:
    def pins(path: str) -> dict[str, str]:
        lines = (line.split("#")[0].split(";")[0].strip() for line in (ROOT / path).read_text().splitlines())
        pairs = (line.split("==") for line in lines if "==" in line)
        return {name.lower().replace("_", "-"): version for name, version in pairs}

    lock = pins("requirements/lock.txt")
    for path in ("requirements/torch.txt", "requirements/dev.txt", "requirements/training.txt"):
        assert pins(path).items() <= lock.items(), path


def test_training_s_requirements_list_what_training_imports() -> None:
    """Who trains on a machine without ComfyUI installs that file alone."""
    called = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "websocket": "websocket-client",
              "scenedetect": "scenedetect-headless"}  # fmt: skip
    listed = {
        re.split(r"[=><; ]", line)[0].lower() for line in (ROOT / "requirements/training.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }  # fmt: skip
    imported = set()
    for path in (path for folder in ("training", "dreamactor_core", "headless") for path in (ROOT / folder).rglob("*.py")):
        if path.is_relative_to(ROOT / "training/files/host"):  # runs in a ComfyUI
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
    ours = {"training", "dreamactor_core", "headless", "bootstrap"}
    assert {called.get(name, name).lower() for name in imported - ours - sys.stdlib_module_names} <= listed


def test_assets_are_offered_and_the_user_s_files_stay(tmp_path: Path) -> None:
    host = comfyui(tmp_path / "host")
    (host / "input").mkdir()
    (host / "input" / "drive_video.mp4").write_text("the user's own")
    for _ in range(2):
        offer_assets(host)
    assert (host / "input" / "reference_human.png").read_bytes() == (ROOT / "assets" / "reference_human.png").read_bytes()
    assert (host / "input" / "drive_video.mp4").read_text() == "the user's own"


def test_two_set_ups_do_not_run_at_once(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(SetupError, match=r"another run\.py is setting up"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK])
def test_a_lock_that_is_held_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(alone, "_lock", lambda _: raise_(OSError(number, os.strerror(number))))
    with pytest.raises(SetupError, match=r"another run\.py is setting up"), only_one(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(alone, "_lock", lambda _: raise_(OSError(number, os.strerror(number))))
    with pytest.raises(SetupError, match="file system cannot lock files") as refused, only_one(tmp_path):
        pass
    assert str(tmp_path) in str(refused.value) and os.strerror(number) in str(refused.value)


def test_torch_is_installed_again_when_its_index_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    host = comfyui(tmp_path / "host")
    for path in (TORCH, LOCK, *OURS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    python = venv_python(tmp_path)
    python.parent.mkdir(parents=True)
    python.write_text("")
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("")
    monkeypatch.setattr(environment, "make_venv", lambda root: python)
    monkeypatch.setattr(environment, "_pip_install", lambda _, *arguments: ran.append([str(a) for a in arguments]))
    monkeypatch.delenv("DREAMACTOR_TORCH_INDEX", raising=False)
    assert environment.install(host, tmp_path) and len(ran) == 2
    assert not environment.install(host, tmp_path) and len(ran) == 2
    monkeypatch.setenv("DREAMACTOR_TORCH_INDEX", "https://example.org/cpu")
    assert environment.install(host, tmp_path) and len(ran) == 5
    assert "--force-reinstall" in ran[2] and "https://example.org/cpu" in ran[2]
    assert not environment.install(host, tmp_path)


def test_the_source_is_lint_free() -> None:
    ran = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_an_old_python_is_told_what_is_needed() -> None:
    # the check must come before anything that an old interpreter cannot read
    source = (ROOT / "run.py").read_text()
    old = source.replace("sys.version_info[:2]", "(3, 6)")
    ran = subprocess.run([sys.executable, "-c", old, "demo"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "got Python 3.6, expected 3.11 to 3.14" in ran.stderr
