"""bench evidence: the same pairs for every row, the drivers that a row is owed, intervals that hold the mean."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evidence
from benchmarks import evidence_report as report
from headless.media import read_image
from training import ablate, config
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_pairs_are_their_seed() -> None:
    one, again, other = (evidence.sample_pairs("nonhuman", seed, 4) for seed in (0, 0, 1))
    assert [pair.scene.character.plan for pair in one] == ["quadruped", "bird", "quadruped", "bird"]
    assert all(np.array_equal(a.truth, b.truth) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a.truth, b.truth) for a, b in zip(one, other, strict=True))


def test_an_estimator_of_people_sees_no_animal() -> None:
    animal, human = evidence.sample_pairs("nonhuman", 0, 1)[0], evidence.sample_pairs("human", 0, 1)[0]
    assert not evidence.driver_of(animal, "pose").any()
    assert evidence.driver_of(animal, "pose", sees_animals=True).any()
    assert evidence.driver_of(human, "pose").any()
    elsewhere = evidence.driver_of(human, "pose", elsewhere=True)
    assert elsewhere.any() and not np.array_equal(elsewhere, evidence.driver_of(human, "pose"))
    assert evidence.driver_of(animal, "rgb").shape == (17, 96, 64, 3)


def test_all_that_rows_are_shown_can_be_drawn() -> None:
    """And differ from what the pairs' own group shows."""
    for more in evidence.MORE.values():
        pair = evidence.sample_pairs(more.pairs, 0, 4)[0]
        shown, usual = evidence.driver_of(pair, "pose", **more.seen), evidence.driver_of(pair, "pose")
        assert shown.any() and not np.array_equal(shown, usual)


def test_prompts_are_those_of_training() -> None:
    pair = evidence.sample_pairs("human", 0, 1)[0]
    assert evidence.prompt_of(pair, "fused") == pair.scene.describe()
    assert evidence.prompt_of(pair, "none") == ""
    assert evidence.prompt_of(pair, "concatenated").startswith("the character ")


def test_what_is_compared_is_measured() -> None:
    """Rows leave out the drivers that no comparison asks them for, and no others. Raw video has no skeleton to vary."""
    more = {name: one.rows for name, one in evidence.MORE.items()}
    asked = {(group, row) for _, *both, group, _ in report.COMPARISONS for row in both if row.startswith("pose") and group in more}
    assert asked == {(group, row) for group, rows in more.items() for row in rows}
    assert set(more) < set(report._GROUPS)


def test_intervals_hold_the_mean_and_shrink_with_more_pairs() -> None:
    rng = np.random.default_rng(0)

    def rows(count: int) -> list[dict[str, float]]:
        return [dict.fromkeys(evidence.FIGURES, float(value)) for value in rng.normal(15, 2, count)]

    few, many = evidence.summary(rows(12)), evidence.summary(rows(200))
    for found in (few, many):
        assert found["psnr_ci"][0] < found["psnr"] < found["psnr_ci"][1]
    assert np.ptp(many["psnr_ci"]) < 0.5 * np.ptp(few["psnr_ci"])
    gone = evidence.summary([dict.fromkeys(evidence.FIGURES, float("nan"))] * 3)
    assert gone["psnr"] is None and "psnr_ci" not in gone


def test_a_lora_that_is_missing_or_not_finished_names_its_command(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"ablate training/recipes/marionette\.yaml --run pose_full --out"):
            evidence.file_of(tmp_path, "pose_full")
        (tmp_path / "pose_full" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "pose_full" / "train" / "lora.safetensors").write_bytes(b"of an early step")
    recipe = ablate.load(evidence.RECIPE, tmp_path)
    (tmp_path / "pose_full" / ablate.DONE).write_text(ablate.mark_of(recipe, "pose_full"), "utf-8")
    assert evidence.file_of(tmp_path, "pose_full")[0].read_bytes() == b"of an early step"


def test_the_shipped_lora_is_measured(tmp_path: Path) -> None:
    """For real, with few steps: the figures are those of pictures, and a driver makes a difference."""
    settings = config.from_values({"preset": "marionette", "out": str(tmp_path), "variant": "rgb"}, "test")
    network = evidence.load(ROOT / "models/loras/marionette_rgb.safetensors", settings, evidence.Sampling("lcm", 4, 8.0))
    figures, results = evidence.measure_group(network, evidence.sample_pairs("human", 0, 4), 0)
    assert [result.shape for result in results] == [(17, 96, 64, 3)] * 4
    found = evidence.summary(figures)
    assert found["n"] == 4 and 8 < found["psnr"] < 40 and 0 < found["ssim"] < 1
    assert found["psnr"] > found["psnr_other"] and found["motion"] > 0.2


def test_rows_that_are_missing_stop_before_the_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evidence", "--loras", str(tmp_path), "--rows", "pose_full"])
    with pytest.raises(SystemExit, match="holds no finished LoRA"):
        evidence.main()


@pytest.fixture
def two_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which rows were measured. Two of the recipe's are finished, or so their marks say."""
    recipe, measured = ablate.load(evidence.RECIPE, tmp_path), []
    for name in ("pose_full", "pose_no_text"):
        (ablate.folder_of(recipe, name) / "train").mkdir(parents=True)
        (ablate.folder_of(recipe, name) / ablate.DONE).write_text(ablate.mark_of(recipe, name), "utf-8")

    def figures(network: None, pairs: list, seed: int, **seen: bool) -> tuple[list[dict[str, float]], list[np.ndarray]]:
        results = [np.full_like(pair.truth[evidence.LEAD_IN :], 40 * len(measured)) for pair in pairs]
        return [dict.fromkeys(evidence.FIGURES, 10.0 + index) for index, _ in enumerate(pairs)], results

    monkeypatch.setattr(evidence, "load", lambda path, settings, sampling: measured.append(path.parents[1].name))
    monkeypatch.setattr(evidence, "measure_group", figures)
    return measured


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *rows: str, pairs: int = 4) -> list[str]:
    """Names of the rows that the file holds after a call."""
    where = ["--loras", str(folder), "--json", str(folder / "rows.json"), "--sheet", str(folder / "sheet.png")]
    monkeypatch.setattr(sys, "argv", ["evidence", *where, "--pairs", str(pairs), "--rows", *rows])
    evidence.main()
    return [row["row"] for row in json.loads((folder / "rows.json").read_text("utf-8"))["rows"]]


def test_rows_may_be_measured_one_after_the_other(tmp_path: Path, two_finished: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, tmp_path, "pose_no_text") == two_finished == ["pose_no_text"]
    shutil.rmtree(tmp_path / "pose_no_text")  # its LoRA is gone, its row is not
    assert call(monkeypatch, tmp_path, "pose_full", "pose_no_text") == ["pose_full", "pose_no_text"], "in the table's order"
    assert two_finished == ["pose_no_text", "pose_full"], "each once"
    sheet = read_image(tmp_path / "sheet.png")
    assert [int(sheet[line * 96 + 48, -1, 0]) for line in (2, 3)] == [80, 40], "the picture has those of both calls"
    assert call(monkeypatch, tmp_path, "pose_full") == ["pose_full", "pose_no_text"], "a call for some leaves the others"
    (tmp_path / "rows" / "pose_full.png").unlink()
    with pytest.raises(SystemExit, match="holds the row pose_full, but not its picture"):
        call(monkeypatch, tmp_path, "pose_full")


def test_rows_measured_before_a_group_was_are_told_of(
    tmp_path: Path, two_finished: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, tmp_path, "pose_full")
    file = tmp_path / "rows.json"
    found = json.loads(file.read_text("utf-8"))
    assert found["rows"][0].keys() >= {*evidence.GROUPS, evidence.ELSEWHERE}
    call(monkeypatch, tmp_path, "pose_full")
    assert "before" not in capsys.readouterr().err
    del found["rows"][0][evidence.ELSEWHERE], found["rows"][0]["human"]["length"]
    file.write_text(json.dumps(found), "utf-8")
    call(monkeypatch, tmp_path, "pose_no_text")
    assert "before" not in capsys.readouterr().err, "nothing was said of a row that is not asked for"
    call(monkeypatch, tmp_path, "pose_full")
    assert "pose_full was measured before human_elsewhere, length, and stays as it is" in capsys.readouterr().err


def test_rows_of_other_pairs_or_another_recipe_are_not_mixed(
    tmp_path: Path, two_finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, tmp_path, "pose_full")
    file = tmp_path / "rows.json"
    before = file.read_text("utf-8")
    with pytest.raises(SystemExit, match=r"holds rows of seed 0, pairs 4, .*, expected seed 0, pairs 6"):
        call(monkeypatch, tmp_path, "pose_full", pairs=6)
    with monkeypatch.context() as other:
        other.setattr(evidence, "SAMPLING", evidence.Sampling("euler", 8, 8.0))
        with pytest.raises(SystemExit, match=r"pairs 4, sampler lcm, .*, expected .* sampler euler"):
            call(monkeypatch, tmp_path, "pose_full")
    for name, said in (("pose_full", "a row pose_full of another version"), ("pose_old", "a row pose_old of another version")):
        changed = json.loads(before)
        changed["rows"][0] |= {"row": name, "version": "0" * 16}
        file.write_text(json.dumps(changed), "utf-8")
        with pytest.raises(SystemExit, match=said):
            call(monkeypatch, tmp_path, "pose_full")
