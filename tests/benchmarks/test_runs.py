"""The benchmarks themselves, at their smallest, in a real ComfyUI."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks import figures, quality, text
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
    assert all(math.isfinite(row[key]) for key in figures.FIGURES)
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


def saved(path: Path, contract: Contract, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A LoRA file, by default with the weights of the one that ships."""
    if tensors is None:
        with safe_open(quality.ROOT / "models" / "loras" / LORA, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, contract.to_metadata())
    return path


WORLDS = Contract("pose", "marionette", fps=12, lead_in=0.6667, frames=25)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ("missing", "there is no file .*mine.safetensors, expected a LoRA as safetensors"),
        ("folder", "there is no file"),
        ("suffix", "mine.bin is a .bin file, expected .safetensors"),
        ("damaged", "can't be read as safetensors"),
        ("no LoRA", "is no LoRA: none of its 1 keys"),
        ("bare", "does not say what it was trained for, expected a LoRA that `python -m training export` wrote"),
        ("14B", "is a LoRA for wan2.1-i2v-14b, expected one that was trained with `preset: marionette`"),
        ("shallower", "covers 1 feed-forward layers and the model has 16"),
        ("faster", "trained at 16 fps with a lead-in of 8 frames, expected 12 and 8"),
        ("variants", "--variants has rgb, expected of pose, pose_retarget, which mine.safetensors is for"),
        ("longer lead-in", "trained at 12 fps with a lead-in of 30 frames, expected 12 and 8"),
        ("record", "mine.json holds rows of other LoRAs, other.safetensors, that this run would replace"),
        ("namesake", "mine.json holds rows of other LoRAs, mine.safetensors, that this run would replace"),
        ("other pairs", "mine.json holds rows of --seed 0 --pairs 36, that this run would replace; name another file"),
        ("other seed", "mine.json holds rows of --seed 1 --pairs 12, that this run would replace; name another file"),
    ],
)
def test_what_is_no_lora_to_measure_is_refused_at_once(
    about: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("mine.bin" if about == "suffix" else "mine.safetensors")
    if about == "folder":
        path.mkdir()
    elif about == "damaged":
        path.write_bytes(b"{" * 100)
    elif about == "no LoRA":
        saved(path, WORLDS, {"x": torch.zeros(1)})
    elif about == "bare":
        save_file({"diffusion_model.blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 256)}, path, {"by": "another trainer"})
    elif about == "14B":
        saved(path, Contract("pose", "wan2.1-i2v-14b"))
    elif about == "shallower":
        layer = "diffusion_model.blocks.0.ffn.0"
        saved(path, WORLDS, {f"{layer}.lora_A.weight": torch.zeros(4, 256), f"{layer}.lora_B.weight": torch.zeros(1024, 4)})
    elif about == "faster":
        saved(path, replace(WORLDS, fps=16, lead_in=0.5))
    elif about == "longer lead-in":
        saved(path, replace(WORLDS, lead_in=2.5))
    elif about != "missing":
        saved(path, WORLDS)
    monkeypatch.setattr(quality, "measure", None)
    record = tmp_path / "mine.json"
    if about in ("record", "namesake") or about.startswith("other"):
        measured = {"other.safetensors" if about == "record" else path.name: "ab" * 32}
        drawn = {"seed": int(about == "other seed"), "pairs": 36 if about == "other pairs" else 12}
        record.write_text(json.dumps({"loras": measured, "rows": []} | drawn))
    argv = ["quality", "--lora", str(path), "--json", str(record)] + (["--variants", "rgb"] if about == "variants" else [])
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        quality.main()
    assert re.search(said, capsys.readouterr().err)


def test_a_lora_that_fits_is_measured_in_the_workflows_of_its_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "mine.safetensors", WORLDS)
    calls: list[tuple] = []
    monkeypatch.setattr(quality, "measure", lambda *given: calls.append(given) or ())
    record = tmp_path / "mine.json"  # of the same pairs by the same file: measured again
    record.write_text(json.dumps({"loras": {path.name: sha256(path)}, "seed": 0, "pairs": 12, "rows": [{"variant": "pose"}]}))
    monkeypatch.setattr(sys, "argv", ["quality", "--lora", str(path), "--json", str(record)])
    quality.main()
    assert calls == [(0, 12, None, ("pose", "pose_retarget"), path)]


def test_parts_and_pairs_that_have_no_figure_have_none() -> None:
    names = PARTS["human"]
    keys = [*figures.FIGURES, *(f"{key}_of_{name}" for key in ("size", "length") for name in names)]
    one, other = dict.fromkeys(keys, 0.25), dict.fromkeys(keys, 0.75)
    other |= {"psnr": math.nan, f"size_of_{names[1]}": math.nan, f"length_of_{names[0]}": 0.35}
    one[f"size_of_{names[2]}"] = other[f"size_of_{names[2]}"] = math.nan
    parts = figures.by_part([one, other], "human")
    assert list(parts) == list(names)
    assert parts[names[0]] == {"size": 0.5, "length": 0.3}
    assert parts[names[1]] == {"size": 0.25, "length": 0.5} and parts[names[2]] == {"size": None, "length": 0.5}
    assert figures.by_pair([one, other])["psnr_pairs"] == [0.25, None]


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
