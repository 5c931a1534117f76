"""The drawing benchmark: what it draws, and that it does without the other package."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.pose_draw import FRAMES, HEIGHT, WIDTH, published_drawing, whole_body_clip


def test_the_clip_is_a_whole_body_in_every_frame() -> None:
    clip = whole_body_clip(3, 0)
    assert (len(clip), clip.height, clip.width) == (3, HEIGHT, WIDTH) == (3, 480, 832)
    assert FRAMES >= 100
    for (person,) in clip.frames:
        assert [int((points[:, 2] > 0.3).sum()) for points in person.groups().values()] == [18, 70, 21, 21]


def test_without_the_other_package_its_line_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert published_drawing(whole_body_clip(1, 0)) is None
    assert "pip install controlnet-aux" in capsys.readouterr().err
