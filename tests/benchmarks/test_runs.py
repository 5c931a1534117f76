"""The benchmarks themselves, at their smallest, in a real ComfyUI."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks import quality, text
from dreamactor_core.contract import Contract
from training.hashing import sha256
from training.marionette.characters import PARTS

LORA = "marionette_pose_cached.safetensors"


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


def test_quality_measures_a_lora_in_place_of_those_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of the same name: a LoRA that does nothing does not follow its driver."""
    monkeypatch.setattr(quality, "ROWS", (("pose", "human", "human"), ("rgb", "human", "human")))
    shipped, mine, out = quality.ROOT / "models" / "loras" / LORA, tmp_path / LORA, tmp_path / "quality.json"
    with safe_open(shipped, "pt") as file:
        idle = {key: file.get_tensor(key) * (0 if key.endswith("lora_B.weight") else 1) for key in file.keys()}  # noqa: SIM118
        save_file(idle, mine, file.metadata())
    monkeypatch.setattr(sys, "argv", ["quality", "--pairs", "2", "--lora", str(mine), "--json", str(out)])
    quality.main()
    found = json.loads(out.read_text())
    assert found["loras"] == {LORA: sha256(mine)} != {LORA: sha256(shipped)}
    (row,) = found["rows"]
    assert row["variant"] == "pose", "rows that the LoRA is not for are left out"
    assert row["psnr"] < row["psnr_other"] + 0.5, "the one that ships was measured"
    assert list(row["parts"]) == list(PARTS["human"])
    for key in ("size", "length"):  # not quite, where a part is hidden in one of the pairs
        assert np.mean([part[key] for part in row["parts"].values()]) == pytest.approx(row[key], abs=0.05)
    for key in ("psnr", "size", "length", "size_decoded", "length_decoded"):
        assert np.mean(row[f"{key}_pairs"]) == pytest.approx(row[key], abs=1e-4)


@pytest.mark.parametrize(
    ("lora", "variants", "said"),
    [
        ("none.safetensors", [], "expected what `python -m training export` wrote"),
        (__file__, [], "expected what `python -m training export` wrote"),
        ("rgb", ["pose"], "--variants has pose, expected of .*marionette_rgb.safetensors some of rgb"),
        ("14B", [], "a LoRA for wan2.1-i2v-14b, expected one for the small backbone, marionette"),
        ("bare", [], "expected what `python -m training export` wrote"),
    ],
)
def test_what_is_no_lora_to_measure_is_refused_at_once(
    lora: str, variants: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quality.ROOT / "models" / "loras" / "marionette_rgb.safetensors" if lora == "rgb" else tmp_path / lora
    if lora in ("14B", "bare"):
        metadata = Contract("pose", "wan2.1-i2v-14b").to_metadata() if lora == "14B" else {"by": "another trainer"}
        save_file({"x": torch.zeros(1)}, path, metadata)
    monkeypatch.setattr(quality, "measure", None)
    argv = ["quality", "--lora", str(path)] + (["--variants", *variants] if variants else [])
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        quality.main()
    assert re.search(said, capsys.readouterr().err.replace("\n", " "))


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
