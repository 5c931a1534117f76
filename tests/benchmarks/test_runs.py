"""The benchmarks themselves, at their smallest, in a real ComfyUI."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import quality, text


def test_quality_reports_every_figure_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "ROWS", (("pose", "human", "human"), ("rgb", "human", "human")))
    out = tmp_path / "quality.json"
    monkeypatch.setattr(sys, "argv", ["quality", "--seed", "5", "--pairs", "2", "--variants", "rgb", "--json", str(out)])
    quality.main()
    rows = json.loads(out.read_text())["rows"]
    (row,) = rows
    assert (row["variant"], row["driver"], row["reference"], row["n"]) == ("rgb", "human", "human", 2)
    assert all(math.isfinite(row[key]) for key in quality.FIGURES)
    # each is of other pictures than the rest: result and drawing, drawing and VAE, result and VAE
    for size in ("size", "length"):
        three = {row[size], row[f"{size}_vae"], row[f"{size}_decoded"]}
        assert len(three) == 3 and all(0 < one < 0.5 for one in three)
    # the truth is in sight of the reference held still, and nothing is judged against itself
    assert 5 < row["psnr_still"] < 25 and 0 < row["iou_still"] < 1
    assert row["psnr"] > row["psnr_other"] + 1, "another driver does as well"
    assert row["colour_vae"] < 0.1


def test_text_reports_the_sign_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "text.json"
    monkeypatch.setattr(sys, "argv", ["text", "--clips", "2", "--seed", "3", "--json", str(out)])
    text.main()
    found = json.loads(out.read_text())
    assert found["n"] == 2 and 0.02 < found["right"] < 1 and 0 < found["p_wrong"] <= 1
    assert len({found["right"], found["wrong"], found["none"]}) == 3, "the text made no difference at all"


def test_a_sign_test_counts_clips() -> None:
    # 9 of 10 clips are better with the right text than with a wrong one; none is decided against no text
    right = np.full(10, 0.2)
    wrong = right + np.array([0.01] * 9 + [-0.5])
    found = text.summary(np.stack([right, wrong, right], 1))
    assert (found["wins_over_wrong"], found["wins_over_none"], found["p_none"]) == (9, 0, 1.0)
    assert found["p_wrong"] == pytest.approx(11 / 1024)


def test_the_wrong_text_is_another_motion_of_the_limbs_that_are_hidden() -> None:
    for index in range(20):
        scene, wrong = text.sample_clip(0, index)
        plan = scene.character.plan
        assert wrong != scene.describe() and wrong.startswith(f"a {plan} ")
        assert text.LIMBS[wrong.removeprefix(f"a {plan} ")] == text.LIMBS[scene.motion.name], "the skeleton shows that it is wrong"
