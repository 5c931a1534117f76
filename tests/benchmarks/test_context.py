"""bench context: runs are set against the paper's of the same budget and seed, pair by pair."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import context
from headless.media import read_image
from training import ablate, config
from training.errors import UserError


def row(name: str, steps: int, seed: int, psnr: list[float | None], iou: list[float]) -> dict:
    mean = float(np.mean([value for value in psnr if value is not None]))
    about = {"run": f"{name}_{steps}_{seed}", "context": name, "steps": steps, "seed": seed, "psnr_still": 9.0, "psnr_other": 11.0}
    return about | {"psnr": mean, "psnr_ci": [mean - 1, mean + 1], "iou": float(np.mean(iou)), "psnr_pairs": psnr, "iou_pairs": iou}


ROWS = [
    row("joint", 800, 0, [14.0, 15.0, 13.0, 16.0], [0.6] * 4),
    row("joint", 800, 1, [14.2, 15.2, 13.2, 16.2], [0.6] * 4),
    row("joint", 400, 0, [12.0, 13.0, 11.0, 14.0], [0.5] * 4),
    row("cached_near", 800, 0, [13.9, 14.9, None, 15.8], [0.6, 0.61, 0.59, 0.6]),
    row("cached_near", 800, 1, [14.1, 15.1, 13.1, 16.0], [0.6] * 4),
    row("cached", 400, 0, [11.0, 12.0, 10.0, 13.0], [0.4] * 4),
    row("cached_half", 200, 0, [9.0] * 4, [0.3] * 4),
]


def test_equal_budgets_are_compared_pair_by_pair_over_the_seeds_of_both() -> None:
    found = {(line["context"], line["steps"]): line for line in context.against_joint(ROWS)}
    assert found.keys() == {("cached_near", 800), ("cached", 400)}, "of another budget there is no run of the paper's"
    near = found["cached_near", 800]
    assert near["seeds"] == [0, 1]
    assert near["psnr"] == pytest.approx(np.mean([-0.1, -0.1, -0.1, -0.2]), abs=1e-3), "each pair once, over its seeds"
    assert near["psnr_ci"][0] <= near["psnr"] <= near["psnr_ci"][1] < 0
    assert found["cached", 400]["psnr"] == -1 and found["cached", 400]["iou"] == pytest.approx(-0.1)


def test_plot_and_table(tmp_path: Path) -> None:
    ratio = {"joint": 3.1, "cached": 1.5, "cached_near": 1.1, "cached_half": 1.2, "cached_near_half": 1.0}
    context.plot(ROWS, ratio, tmp_path / "plot.png")
    pixels = read_image(tmp_path / "plot.png").reshape(-1, 3).astype(int)
    for place, colour in enumerate([(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)]):
        assert (np.abs(pixels - colour).max(1) < 3).sum() > 20, f"points of the context number {place} have a colour of their own"
    said = context.table(ROWS, context.against_joint(ROWS))
    assert "cached_near - joint, 800 steps, seeds [0, 1]: psnr -0.1" in said


def test_two_seeds_do_not_make_intervals_narrower() -> None:
    own, joint = [14.0, 15.5, 12.0, 16.1, 13.3], [14.2, 15.0, 12.9, 16.0, 13.0]
    rows = [row(name, 800, seed, values, [0.5] * 5) for name, values in (("cached", own), ("joint", joint)) for seed in (0, 1)]
    (both,), (one,) = (context.against_joint(found) for found in (rows, [r for r in rows if r["seed"] == 0]))
    assert both["psnr_ci"] == one["psnr_ci"] and both["psnr"] == one["psnr"]


def test_every_context_has_a_run_in_the_recipe_and_data_of_its_own_kind(tmp_path: Path) -> None:
    recipe = ablate.load(context.RECIPE, tmp_path)
    settings = {name: ablate.settings_of(recipe, name) for name in context.trained(recipe)}
    assert {one.motion_context for one in settings.values()} == context.CONTEXTS.keys()
    for name, one in settings.items():  # the cache that a run reads is its own, or of a run that kept the same of the driver
        of = name if one.train.cache is None else one.train.cache[0].parent.name
        assert "cache" in recipe.runs[of].verbs and of in (name, *recipe.runs[name].needs)
        own, made = (context.CONTEXTS[s.motion_context] for s in (one, ablate.settings_of(recipe, of)))
        assert (own.cached, own.scale) == (made.cached, made.scale), name
    with pytest.raises(UserError, match=r"holds no finished LoRA; python -m training ablate training/recipes/motion_context\.yaml"):
        context.finished(recipe)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which runs were measured. Two of the recipe's are finished, or so their marks say."""
    recipe, measured = ablate.load(context.RECIPE, tmp_path), []
    for name in ("joint_short", "cached_short"):
        ablate.folder_of(recipe, name).mkdir()
        (ablate.folder_of(recipe, name) / ablate.DONE).write_text(ablate.mark_of(recipe, name), "utf-8")

    def figures(network: None, pairs: list, seed: int) -> tuple[list[dict[str, float]], list]:
        return [dict.fromkeys(context.evidence.FIGURES, 10.0 + index) for index, _ in enumerate(pairs)], []

    def load(path: Path, settings: config.Config, sampling: context.evidence.Sampling) -> None:
        assert sampling == context.SAMPLING
        measured.append(path.parents[1].name)

    monkeypatch.setattr(context.evidence, "load", load)
    monkeypatch.setattr(context.evidence, "measure_group", figures)
    return measured


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, seed: int = 0) -> list[str]:
    """Names of the rows that the file holds after a call."""
    arguments = ["--loras", str(folder), "--json", str(folder / "rows.json"), "--pairs", "4", "--seed", str(seed)]
    monkeypatch.setattr(sys, "argv", ["context", *arguments])
    context.main()
    return [one["run"] for one in json.loads((folder / "rows.json").read_text("utf-8"))["rows"]]


def test_what_the_file_holds_is_not_measured_again(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["joint_short", "cached_short"]
    mark = tmp_path / "cached_short" / ablate.DONE
    text = mark.read_text("utf-8")
    mark.unlink()
    assert call(monkeypatch, tmp_path) == runs == both[:1]
    mark.write_text(text, "utf-8")
    (tmp_path / "joint_short" / ablate.DONE).unlink()  # its LoRA is gone, its row is not
    assert call(monkeypatch, tmp_path) == runs == both
    assert json.loads((tmp_path / "rows.json").read_text("utf-8"))["against_joint"][0]["psnr"] == 0
    assert call(monkeypatch, tmp_path) == runs == both


def test_rows_that_may_not_come_again_stay(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, tmp_path)
    file = tmp_path / "rows.json"
    before = file.read_text("utf-8")
    with pytest.raises(SystemExit, match=r"holds rows of seed 0, pairs 4, .*, expected seed 1, pairs 4, .*; name another file"):
        call(monkeypatch, tmp_path, seed=1)
    recipe = yaml.safe_load(context.RECIPE.read_text("utf-8"))
    recipe["base"]["train"]["steps"] = 500
    with monkeypatch.context() as other:
        other.setattr(context, "RECIPE", tmp_path / "recipe.yaml")
        context.RECIPE.write_text(yaml.safe_dump(recipe), "utf-8")
        with pytest.raises(SystemExit, match="holds a row joint_short of another version of the recipe; name another file"):
            call(monkeypatch, tmp_path)
    assert file.read_text("utf-8") == before
    with monkeypatch.context() as other:  # what a row is the result of can't be told: that says nothing against the row
        other.setattr(context.kept, "version_of", lambda recipe, name: ablate.mark_of(recipe, "joint"))
        other.setattr(ablate, "ROOT", tmp_path)
        with pytest.raises(SystemExit, match=r"error: run joint: there is no .*marionette_pose\.safetensors, which"):
            call(monkeypatch, tmp_path)
    for text, said in (("[1, 2]", "TypeError"), ('{"rows": [{"row": "pose_full"}]}', "KeyError"), ("{", "JSONDecodeError")):
        file.write_text(text, "utf-8")
        with pytest.raises(SystemExit, match=rf"--json .*rows\.json can't be read \({said}"):
            call(monkeypatch, tmp_path)
        assert file.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pairs", "5"], "argument --pairs: 5, expected an even number"),
        (["--plot", "x.png"], "--plot is given without --speed"),
        (["--speed", "nowhere.json"], "--speed nowhere.json can't be read"),
        (["--speed", "{folder}/few.json"], "few.json can't be read (KeyError('cached_half'))"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "few.json").write_text('{"step_ratio": {"joint": 3.0, "cached": 1.5, "cached_near": 1.1}}')
    monkeypatch.setattr(sys, "argv", ["context", *(one.replace("{folder}", str(tmp_path)) for one in arguments)])
    with pytest.raises(SystemExit) as caught:
        context.main()
    assert said in f"{caught.value} {capsys.readouterr().err}"
