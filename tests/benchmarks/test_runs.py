"""The benchmarks themselves, at their smallest, in a real ComfyUI."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from benchmarks import quality, speed, text
from dreamactor_core.contract import Contract
from dreamactor_core.motion_context import CONTEXTS
from headless.client import Progress, by_title
from headless.media import read_image
from training.plan import costs
from training.plan.network import RELEASED, network

KEYS = {"psnr", "psnr_still", "psnr_other", "psnr_all", "ssim", "iou", "iou_still", "iou_other"}


def test_quality_reports_every_figure_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "ROWS", (("rgb", "human", "human"),))
    out = tmp_path / "quality.json"
    monkeypatch.setattr(sys, "argv", ["quality", "--seed", "5", "--pairs", "2", "--json", str(out)])
    quality.main()
    rows = json.loads(out.read_text())["rows"]
    (row,) = rows
    assert (row["variant"], row["driver"], row["reference"], row["n"]) == ("rgb", "human", "human", 2)
    assert row.keys() >= KEYS
    assert all(math.isfinite(row[key]) for key in KEYS)
    # the truth is in sight of the reference held still, and nothing is judged against itself
    assert 5 < row["psnr_still"] < 25 and 0 < row["iou_still"] < 1
    assert row["psnr"] > row["psnr_other"] + 1, "another driver does as well"
    assert row["colour_vae"] < 0.1


def test_steps_are_timed_by_their_number_not_by_the_messages() -> None:
    clock = speed.StepClock("5")
    clock.seen = [(1, 10.0), (4, 10.9), (5, 11.2)]  # two messages were left out
    assert clock.seconds() == pytest.approx(0.3)
    clock(Progress("4", "Sampler", 1, 5))
    clock(Progress("5", "Sampler", 0, 5))
    assert len(clock.seen) == 3, "another node, and a step that only begins"


def test_all_graphs_of_the_speed_ratios_sample_as_many_frames(tmp_path: Path) -> None:
    speed.write_loras(tmp_path)
    graphs = speed.graphs(64, 96, 25, 0)
    assert graphs.keys() == {"plain", *CONTEXTS}
    for name, graph in graphs.items():
        conditioning = by_title(graph, "In-context conditioning")["inputs"]
        assert [conditioning[key] for key in ("width", "height", "length")] == [64, 96, 25]
        if name != "plain":
            file = by_title(graph, "Motion LoRA")["inputs"]["lora_name"]
            with safe_open(tmp_path / file, "pt") as opened:
                assert Contract.from_metadata(opened.metadata()).motion_context == name


def test_the_real_size_has_the_share_of_attention_of_a_large_network() -> None:
    shares = []
    for name, (width, height, frames) in (("wan2.1-i2v-14b", (832, 480, 81)), ("marionette", speed.REAL)):
        net = network(name, RELEASED[name])
        tokens = costs.video_tokens(net, width, height, frames, None)
        shares.append(net.layers * 4 * tokens**2 * net.width / costs.flops(net, tokens, 0, False).forward)
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_speed_reports_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIZES", ((64, 96, 9),))
    monkeypatch.setattr(speed, "VAE_SIZE", (64, 96, 9))
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "STEPS", 4)
    out, drawn = tmp_path / "speed.json", tmp_path / "speed.png"
    monkeypatch.setattr(sys, "argv", ["speed", "--json", str(out), "--plot", str(drawn)])
    speed.main()
    found = json.loads(out.read_text())
    for key in ("step_ratio", "vae_ratio"):
        assert found[key].keys() == CONTEXTS.keys() and all(value > 0 for value in found[key].values())
    vae, steps = found["rows"]
    assert (vae["what"], steps["frames"], steps["tokens"]) == ("vae", 9, 3 * 6 * 4)
    assert read_image(drawn).shape[2] == 3


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


def test_the_wrong_text_is_another_motion_of_the_same_character() -> None:
    for index in range(20):
        scene, wrong = text.sample_clip(0, index)
        plan = scene.character.plan
        assert wrong != scene.describe() and wrong.startswith(f"a {plan} ") and wrong.removeprefix(f"a {plan} ") in text.LIMBS
