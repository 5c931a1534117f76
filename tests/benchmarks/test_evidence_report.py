"""The report of bench evidence: verdicts by intervals, figures between two marks, text that people wrote left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import evidence
from benchmarks import evidence_report as report
from training import ablate
from training.errors import UserError


def figures(values: np.ndarray, still: float = 8.0) -> dict:
    rows = [dict.fromkeys(evidence.FIGURES, float(value)) | {"psnr_still": still} for value in values]
    return evidence.summary(rows)


def test_verdicts() -> None:
    spread = np.random.default_rng(0).normal(14, 1.5, 24)
    base = figures(spread)
    assert report.verdict(figures(spread + 4), base) == "yes, intervals apart"
    assert report.verdict(figures(spread + 0.2), base) == "yes, pair by pair", "every pair is better, though pairs differ by more"
    assert report.verdict(figures(spread - 0.2), base) == "no, the other way"
    assert report.verdict(figures(spread + np.where(np.arange(24) % 2, 1, -1)), base) == "not decided"


def test_the_share_of_the_gap() -> None:
    assert report.gap_share(figures(np.full(4, 12.0)), figures(np.full(4, 13.0))) == pytest.approx(0.8)


def test_only_what_is_between_the_marks_changes(tmp_path: Path) -> None:
    path = tmp_path / "evidence.md"
    path.write_text(f"before\n{report.BEGIN}\nearlier\n{report.END}\nafter\n", "utf-8")
    rng = np.random.default_rng(1)

    def row(name: str, mean: float) -> dict:
        made = {"row": name, "human": figures(rng.normal(mean, 1, 8)), "nonhuman": figures(rng.normal(mean - 2, 1, 8))}
        return made | figures(rng.normal(mean, 1, 16))

    found = {"seed": 3, "pairs": 8, "sampler": "lcm", "steps": 8, "shift": 5.0}
    found |= {"rows": [row("pose_full", 12), row("pose_no_text", 9), row("rgb_synthetic", 14)]}
    for _ in range(2):
        report.put(path, found)
        text = path.read_text("utf-8")
        assert text.startswith(f"before\n{report.BEGIN}\n") and text.endswith(f"\n{report.END}\nafter\n") and "earlier" not in text
    assert "8 sampling steps of `lcm` at a shift of 5. " in text
    assert "bench evidence --seed 3 --pairs 8" in text and "(evidence.png)" in text
    assert text.count("| rgb_synthetic |") == 2, "a line for each kind of driver"
    assert "\n    python -m training ablate training/recipes/marionette.yaml --run rgb_synthetic\n" in text
    assert "| text over none | human | pose_full, pose_no_text | +" in text
    assert "pose_temporal" not in text and "ceiling" not in text, "what was not measured is not spoken of"


def test_rows_measured_before_a_figure_or_a_group_was_are_told() -> None:
    rng = np.random.default_rng(2)
    old, new = ({"row": row, "human": figures(rng.normal(12, 1, 8))} for row in ("pose_full", "pose_no_aug"))
    for key in ("length", "length_ci"):
        del old["human"][key]
    new["human_elsewhere"] = figures(rng.normal(11, 1, 8))
    found = {"seed": 0, "pairs": 8, "sampler": "lcm", "steps": 8, "shift": 8.0, "rows": [old, new]}
    text = report.markdown(found, "evidence.png")
    line = next(line for line in text.splitlines() if line.startswith("| pose_full |"))
    assert [cell.strip() for cell in line.strip("|").split("|")].count("-") == 1, "it has no length error"
    assert "| augmentation over none | human_elsewhere | pose_full, pose_no_aug | - | not measured | yes |" in text
    assert "knows animals" not in text, "no row was measured with those"


@pytest.mark.parametrize("row", [*evidence.ROWS, evidence.TEACHER])
def test_each_row_has_a_run_that_trains_it(row: str) -> None:
    *_, recipe, option, run = report.command_of(row).split()
    found = ablate.load(evidence.ROOT / recipe)
    assert option == "--run" and found.runs[run].verbs[-1] == "train"


@pytest.mark.parametrize("text", ["", "none", f"{report.END}\n{report.BEGIN}", f"{report.BEGIN}{report.BEGIN}{report.END}"])
def test_a_file_without_marks_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "evidence.md"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match="figures: begin"):
        report.put(path, {"rows": []})
