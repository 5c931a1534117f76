"""`python -m training filter`: which samples each rule drops, and what it says when it cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from training import manifest
from training.__main__ import main
from training.config import GRADES
from training.manifest import Sample


def samples_with(folder: Path, scores: list[dict[str, float]]) -> Path:
    """A manifest of samples with these scores."""
    made = [
        Sample(
            id=f"s{k}", kind="e2e", target_video=folder / f"t{k}.mkv", driving_video=folder / f"d{k}.mkv", fps=12, frames=25,
            width=64, height=96, scores=values,
        )
        for k, values in enumerate(scores)
    ]  # fmt: skip
    manifest.write(folder / "run" / "scores" / "manifest.jsonl", made)
    return folder


def run(folder: Path, preset: str = "wan2.1_i2v_14b", score: dict | None = None, **rules: object) -> int:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"preset": preset, "out": str(folder / "run"), "filter": rules, "score": score or {}}), "utf-8")
    return main(["filter", str(path)])


def kept(folder: Path) -> list[str]:
    return [sample.id for sample in manifest.read(folder / "run" / "kept" / "manifest.jsonl")]


def graded(*values: float) -> dict[str, float]:
    return dict(zip(GRADES, values, strict=False))


def test_the_mean_of_the_grades_must_exceed_the_threshold(tmp_path: Path) -> None:
    samples_with(tmp_path, [graded(5, 5, 4, 4), graded(5, 5, 5, 4), graded(4, 4, 4, 4), graded(5, 4, 4, 4)])
    assert run(tmp_path) == 0
    assert kept(tmp_path) == ["s1"]  # 4.5 itself does not exceed 4.5
    assert run(tmp_path, threshold=4) == 0
    assert kept(tmp_path) == ["s0", "s1", "s3"]


def test_least_and_most_include_their_limits(tmp_path: Path) -> None:
    values = [(0.8, 0.01), (0.79, 0.01), (0.9, 0.02), (0.9, 0.021)]
    samples_with(tmp_path, [{"identity": a, "flicker": b} for a, b in values])
    assert run(tmp_path, least={"identity": 0.8}, most={"flicker": 0.02}) == 0
    assert kept(tmp_path) == ["s0", "s2"]


def test_the_best_share_by_each_measure(tmp_path: Path) -> None:
    flow, flicker = [0.5, 0.9, 0.1, 0.7, 0.3], [0.01, 0.02, 0.03, 0.04, 0.05]
    samples_with(tmp_path, [{"motion_flow": a, "flicker": b} for a, b in zip(flow, flicker, strict=True)])
    assert run(tmp_path, keep_best={"motion_flow": 0.8}) == 0
    assert kept(tmp_path) == ["s0", "s1", "s3", "s4"]
    assert run(tmp_path, keep_best={"flicker": 0.6}) == 0  # less flicker is better
    assert kept(tmp_path) == ["s0", "s1", "s2"]
    assert run(tmp_path, keep_best={"flicker": 0.6, "motion_flow": 0.6}) == 0  # each of all samples, whatever the other drops
    assert kept(tmp_path) == ["s0", "s1"]
    assert run(tmp_path, keep_best={"flicker": 0.01}) == 0
    assert kept(tmp_path) == ["s0"]
    assert run(tmp_path, keep_best={"flicker": 1.0}) == 0
    assert len(kept(tmp_path)) == 5


def test_equals_are_told_apart_by_id_whatever_their_order(tmp_path: Path) -> None:
    samples_with(tmp_path, [{"identity": 0.5}] * 4)
    path = tmp_path / "run" / "scores" / "manifest.jsonl"
    assert run(tmp_path, keep_best={"identity": 0.5}) == 0
    first = kept(tmp_path)
    path.write_text("\n".join(reversed(path.read_text("utf-8").splitlines())), "utf-8")
    assert run(tmp_path, keep_best={"identity": 0.5}) == 0
    assert sorted(kept(tmp_path)) == sorted(first) == ["s0", "s1"]


def test_the_table_says_what_each_rule_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [(5, 0.9), (3, 0.9), (3, 0.1), (5, 0.2)]
    samples_with(tmp_path, [graded(grade) | {"identity": identity} for grade, identity in values])
    assert run(tmp_path, least={"identity": 0.5}) == 0
    rows = {line.rsplit(None, 2)[0].strip(): line.split()[-2:] for line in capsys.readouterr().out.splitlines()[1:3]}
    assert rows == {"mean of 1 Video-Bench grades > 4.5": ["2", "1"], "identity >= 0.5": ["2", "1"]}
    assert "kept" in (tmp_path / "run" / "kept" / "table.txt").read_text("utf-8")
    lines = (tmp_path / "run" / "kept" / "dropped.jsonl").read_text("utf-8").splitlines()
    reasons = {entry["id"]: len(entry["rules"]) for entry in map(json.loads, lines)}
    assert reasons == {"s1": 1, "s2": 2, "s3": 1}
    assert kept(tmp_path) == ["s0"]


def test_without_grades_and_rules_all_are_kept_and_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples_with(tmp_path, [{"identity": 0.1}, {}])
    assert run(tmp_path) == 0
    assert kept(tmp_path) == ["s0", "s1"]
    assert "no rule" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "rules", "score", "said"),
    [
        ([{"identity": 0.5}, {}], {"least": {"identity": 0.1}}, {}, "1 of 2 samples have no score identity (s1)"),
        ([graded(5, 5), graded(5)], {}, {}, "have no score aesthetic_quality (s1)"),
        ([{"identity": 0.5}], {}, {"service": "gemini", "model": "m"}, "training score` with it first"),
        ([{"identity": 0.5}], {"most": {"sharpness": 1}}, {}, "there is no score sharpness, expected one of identity"),
        ([{"identity": 0.5}], {"keep_best": {"identity": 0}}, {}, "filter.keep_best.identity"),
        ([{"identity": 0.5}], {"keep_best": {"identity": 1.5}}, {}, "filter.keep_best.identity"),
        ([{"identity": 0.5}], {"threshold": 6}, {}, "filter.threshold"),
        ([{"identity": 0.5}], {"least": {"identity": 0.6}}, {}, "all 1 samples"),
        ([], {}, {}, "is empty"),
    ],
)
def test_what_it_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: list, rules: dict, score: dict, said: str
) -> None:
    samples_with(tmp_path, scores)
    assert run(tmp_path, score=score, **rules) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "kept" / "manifest.jsonl").exists()


def test_no_scores_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 1
    assert "there is no manifest" in capsys.readouterr().err
