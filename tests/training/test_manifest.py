"""Paths in a manifest: as they are opened from its folder, wherever that is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from training import manifest
from training.manifest import Sample


def listed(path: Path, video: Path) -> str:
    """Writes a manifest of one clip; the video as its line has it."""
    video.parent.mkdir(parents=True, exist_ok=True)
    video.write_bytes(b"x")
    sample = Sample(id="a", kind="pose", target_video=video, fps=16, frames=81, width=832, height=480)
    manifest.write(path, [sample])
    assert manifest.read(path)[0].target_video.samefile(video)
    return json.loads(path.read_text("utf-8"))["target_video"]


def test_paths_lead_across_folders(tmp_path: Path) -> None:
    assert listed(tmp_path / "a" / "m.jsonl", tmp_path / "b" / "c.mp4") == "../b/c.mp4"


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    """As `out` is that lies on another disk: from there `..` leads to the parent of what it links to."""
    (tmp_path / "large" / "disk").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "large" / "disk")
    listed(tmp_path / "runs" / "a" / "m.jsonl", tmp_path / "runs" / "b" / "c.mp4")
    listed(tmp_path / "runs" / "b" / "m.jsonl", tmp_path / "runs" / "a" / "c.mp4")


def test_there_is_no_way_to_another_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(path: str, start: str) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", apart)
    video = tmp_path / "b" / "c.mp4"
    assert listed(tmp_path / "a" / "m.jsonl", video) == video.as_posix()
