"""The command line: what a machine is short of is said in words, and what else goes wrong is not hidden."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from synthetic_pairs import write_config, write_pairs

from training import manifest
from training.__main__ import main
from training.plan import report
from training.synthesize import run as synthesizing
from training.train import run as training


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    scored = [one.model_copy(update={"scores": {"flicker": 0.01}}) for one in write_pairs(folder, 1)]
    manifest.write(folder / "manifest.jsonl", scored)
    return folder / "manifest.jsonl"


@pytest.mark.parametrize("verb", ["score", "filter", "review"])
def test_an_out_below_a_file_is_said_in_words(verb: str, pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder", "utf-8")
    measures = {"measures": ["flicker"]} if verb == "score" else {}
    path = write_config(tmp_path, out=str(tmp_path / "file" / "run"), **{verb: {"manifest": str(pairs), **measures}})
    assert main([verb, str(path)]) == 1
    said = capfd.readouterr().err
    assert said.startswith("error: ") and f"{tmp_path / 'file'}" in said and "Not a directory, expected a place" in said
    assert "name another `out`" in said and "Traceback" not in said


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(report, "made", fails)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "a file of the run: No space left on device, expected room on the disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x/y"), "x/y: Disk quota exceeded, expected room on the disk; make some"),
        (OSError(errno.EROFS, "Read-only file system", "x/y"), "x/y: Read-only file system, expected a place that may be read and"),
        (OSError(errno.EIO, "Input/output error", "x/y"), "x/y: Input/output error, expected a file or folder that can be used"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore"), "left (CUDA out of memory. Tried 2 GiB.)"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_machine_is_short_of(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, error)
    assert main(["plan", str(write_config(tmp_path))]) == 1
    told = capfd.readouterr().err
    assert told.startswith("error: ") and said in told and "Traceback" not in told


@pytest.mark.parametrize(
    "error",
    [
        OSError("a bug"), ConnectionResetError(errno.ECONNRESET, "reset"), RuntimeError("a bug"),
        FileNotFoundError(errno.ENOENT, "a bug", "ffmpeg"), PermissionError(errno.EACCES, "a bug"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_none_of_it_keeps_its_traceback(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, error)
    with pytest.raises(type(error), match=r"a bug|reset"):
        main(["plan", str(write_config(tmp_path))])


def test_less_memory_is_what_the_verb_can_do_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(training, "Trainer", full)
    assert main(["train", str(write_config(tmp_path))]) == 1
    said = capfd.readouterr().err
    assert all(word in said for word in ("train.accumulate", "train.checkpointing: true", "backbone.base: fp8 or int8"))
    assert "expected room" in said and "`python -m training plan`" in said
    monkeypatch.setattr(synthesizing, "_check", full)
    assert main(["synthesize", str(write_config(tmp_path))]) == 1
    assert "synthesize.batch: 1" in capfd.readouterr().err
