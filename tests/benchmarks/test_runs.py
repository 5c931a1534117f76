"""The benchmarks themselves, at their smallest, in a real ComfyUI."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from benchmarks import quality, speed

KEYS = {"psnr", "psnr_still", "psnr_other", "psnr_all", "ssim", "iou", "iou_still", "iou_other"}


def test_quality_reports_every_figure_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "ROWS", (("rgb", "bird", "bird"),))
    out = tmp_path / "quality.json"
    monkeypatch.setattr(sys, "argv", ["quality", "--seed", "5", "--pairs", "2", "--json", str(out)])
    quality.main()
    rows = json.loads(out.read_text())["rows"]
    (row,) = rows
    assert (row["variant"], row["driver"], row["reference"], row["n"]) == ("rgb", "bird", "bird", 2)
    assert row.keys() >= KEYS
    assert all(math.isfinite(row[key]) for key in KEYS)
    # the truth is in sight of the reference held still, and nothing is judged against itself
    assert 5 < row["psnr_still"] < 25 and 0 < row["iou_still"] < 1
    assert row["psnr"] != row["psnr_other"], "another driver made the same result"
    assert row["colour_vae"] < 0.1


def test_speed_reports_a_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIZES", ((64, 96, 9),))
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "STEPS", 4)
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed", "--json", str(out)])
    speed.main()
    found = json.loads(out.read_text())
    assert found["step_ratio"]["joint"] > 0
    assert found["rows"][0]["frames"] == 9
