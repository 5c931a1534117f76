"""The quality measures on pictures whose figures are known beforehand."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import quality
from benchmarks.figures import FIGURES, judge, mean_figures
from benchmarks.measures import (
    colour_error,
    iou,
    length_error,
    length_errors,
    motion_agreement,
    moving_parts,
    part_iou,
    psnr_on,
    segment,
    size_error,
    size_errors,
    structural_similarity,
)  # fmt: skip
from benchmarks.quality import ROWS, sample_pair
from headless.metrics import moving_region
from training.marionette.characters import PARTS
from training.marionette.world import LEAD_IN

PALETTE = {0: [(128, 128, 128)], 1: [(255, 0, 0)], 2: [(0, 0, 255)]}


def bar(left: int, label: int, frames: int = 1) -> np.ndarray:
    """Labels of a bar 4 wide at `left`, in 16x16."""
    labels = np.zeros((frames, 16, 16), np.uint8)
    labels[:, :, left : left + 4] = label
    return labels


def paint(labels: np.ndarray) -> np.ndarray:
    return np.array([PALETTE[0][0], PALETTE[1][0], PALETTE[2][0]], np.uint8)[labels]


def test_segmentation_returns_the_labels_that_were_painted() -> None:
    labels = bar(2, 1) + bar(9, 2)
    assert (segment(paint(labels), PALETTE) == labels).all()


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 1 / 3), (4, 0.0)])
def test_iou_of_shifted_bars(shift: int, expected: float) -> None:
    assert iou(bar(2, 1) == 1, bar(2 + shift, 1) == 1) == pytest.approx(expected)


def test_a_part_moves_only_when_the_still_picture_misses_it() -> None:
    labels = np.concatenate([bar(2 + t, 1) | bar(11, 2) for t in range(4)])
    assert moving_parts(labels, labels[0], 2) == [1]


def test_perfect_and_constant_offset() -> None:
    truth = paint(bar(3, 1, 3))
    assert psnr_on(truth, truth) == float("inf")
    assert part_iou(bar(3, 1, 3), bar(3, 1, 3), [1]) == 1.0
    darker = (truth.astype(int) // 2).astype(np.uint8)
    error = np.square((truth.astype(float) - darker) / 255).mean()
    assert psnr_on(darker, truth) == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert structural_similarity(truth, truth) == pytest.approx(1.0, abs=1e-4)


def test_size_error_is_the_ratio_of_areas() -> None:
    labels = bar(2, 1) | bar(10, 2)
    assert size_error(labels, labels, 2) == 0
    wider = labels.copy()
    wider[:, :, 6:8] = 1  # six columns for four
    assert size_error(wider, labels, 2) == pytest.approx(np.log(1.5) / 2)
    assert size_errors(wider, labels, 3) == pytest.approx([np.log(1.5), 0, np.nan], nan_ok=True)
    assert size_error(np.zeros_like(labels), labels, 2) == pytest.approx(np.log(64))


def test_length_error_is_the_ratio_of_lengths_in_any_direction() -> None:
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[:, 4:6, 2:14] = 1  # 12 long, lying
    labels[:, 8:24, 20:22] = 2  # 16 long, standing
    assert length_error(labels, labels, 2) == 0
    longer = labels.copy()
    longer[:, 4:6, 14:20] = 1  # 18 for 12
    longer[:, 28, 28] = 2  # a speck elsewhere is no part of it
    assert length_error(longer, labels, 2) == pytest.approx(np.log(1.5) / 2, rel=0.03)
    assert length_errors(longer, labels, 3) == pytest.approx([np.log(1.5), 0, np.nan], rel=0.03, nan_ok=True)
    half = labels.copy()
    half[0][half[0] == 1] = 0  # gone in one frame of two
    assert length_error(half, labels, 2) == pytest.approx(np.log(2) / 2)
    assert length_error(np.zeros_like(labels), labels, 1) == pytest.approx(np.log(12), rel=0.03)
    fringe = np.where(labels == 1, 0, labels)
    fringe[:, 5, 2:9] = 1  # seven pixels along the edge of 24
    assert length_error(fringe, labels, 1) == pytest.approx(np.log(12), rel=0.03)
    assert np.isnan(length_error(labels, np.zeros_like(labels), 2))


def test_lengths_of_a_limb_do_not_depend_on_how_it_is_turned() -> None:
    flat, turned = np.zeros((1, 48, 48), np.uint8), np.zeros((1, 48, 48), np.uint8)
    cv2.line(flat[0], (8, 24), (36, 24), 1, 5)
    cv2.line(turned[0], (14, 14), (34, 34), 1, 5)
    assert length_error(turned, flat, 1) < 0.06


def test_a_cartoon_and_a_human_differ_in_proportions_by_more_than_half() -> None:
    for row, (variant, driver, plan) in enumerate(ROWS):
        if variant.startswith("pose") and driver != plan:
            for index in range(8):
                pair = sample_pair(0, row, index)
                own, drivers = (scene.character.proportions for scene in (pair.scene, pair.driver))
                for limb in ("arm", "leg"):
                    ratio = own["head"] / own[limb] / (drivers["head"] / drivers[limb])
                    assert max(ratio, 1 / ratio) > 1.5


def test_retargeted_rows_have_the_pairs_of_their_pose_rows() -> None:
    for row, (variant, driver, plan) in enumerate(ROWS):
        if variant == "pose_retarget":
            same = ROWS.index(("pose", driver, plan))
            assert (sample_pair(0, row, 1).truth == sample_pair(0, same, 1).truth).all()


def test_colour_error_is_the_offset() -> None:
    labels = np.repeat(np.repeat(bar(3, 1), 3, 1), 3, 2)
    shifted = paint(labels).astype(int)
    shifted[labels == 1] += [-51, 0, 0]
    assert colour_error(shifted.astype(np.uint8), labels, {1: (255, 0, 0)}) == pytest.approx(0.2 / 3, abs=1e-3)


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_the_colours_of_another_identity_are_found_out(row: int) -> None:
    pair = sample_pair(0, row, 0)
    truth, labels, colours = pair.truth[LEAD_IN:], pair.labels[LEAD_IN:], pair.scene.character.colours
    own = {i + 1: colours[name] for i, name in enumerate(PARTS[pair.scene.character.plan])}
    honest = colour_error(truth, labels, own)
    assert honest < 0.02
    driver = pair.driver.draw()[0][LEAD_IN:]
    assert colour_error(driver, labels, own) > 5 * max(honest, 0.02), "the driver itself"
    rotated = truth.copy()
    for part, other in zip(own, [*list(own)[1:], next(iter(own))], strict=True):
        rotated[labels == part] = own[other]
    assert colour_error(rotated, labels, own) > 5 * max(honest, 0.02), "the parts' colours changed about"
    # a following that is not perfect is no leak
    late = np.concatenate([truth[:1], truth[:-1]])
    assert colour_error(late, labels, own) < 0.06


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_the_truth_itself_beats_both_controls_in_every_row(row: int) -> None:
    pair, other = sample_pair(0, row, 0), sample_pair(0, row, 1)
    truth = pair.truth[LEAD_IN:]
    figures = judge(pair, truth, other.truth[LEAD_IN:], truth)
    assert figures["psnr"] == float("inf")
    assert figures["psnr_still"] < 25 and figures["psnr_other"] < 25
    assert figures["iou"] > 0.75 and figures["iou_still"] < 0.8
    assert moving_region(truth, pair.truth[0]).any()


def blurred(frames: np.ndarray) -> np.ndarray:
    """As a VAE does it: edges are moved."""
    small = [cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack([cv2.resize(frame, frames.shape[2:0:-1]) for frame in small])


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_what_the_vae_does_to_sizes_is_not_held_against_the_result(row: int) -> None:
    pair = sample_pair(0, row, 0)
    truth = blurred(pair.truth[LEAD_IN:])
    figures = judge(pair, truth, truth, truth)
    assert figures["size"] == figures["size_vae"] > 0 == figures["size_decoded"]
    assert figures["length"] == figures["length_vae"] > 0 == figures["length_decoded"]
    assert not {"size_vae", "size_decoded", "length_vae", "length_decoded", "colour_vae"} & judge(pair, truth, truth).keys()


@pytest.mark.parametrize("row", [row for row, (_, driver, plan) in enumerate(ROWS) if driver != plan])
def test_a_body_of_the_drivers_build_is_found_out_after_the_vae_too(row: int) -> None:
    pair = sample_pair(0, row, 0)
    mine = pair.scene.character
    swapped = replace(pair.driver, character=replace(pair.driver.character, colours=mine.colours, hair=mine.hair))
    truth, result = (blurred(scene.draw()[0][LEAD_IN:]) for scene in (pair.scene, swapped))
    figures = judge(pair, result, result, truth)
    for size in ("size", "length"):
        assert figures[f"{size}_driver"] > 0.15
        assert figures[f"{size}_decoded"] == pytest.approx(figures[f"{size}_driver"], rel=0.25)


def test_a_part_that_the_vae_loses_is_judged_none_the_less() -> None:
    labels = np.zeros((2, 20, 20), np.uint8)
    labels[:, 2:10, 2:10], labels[:, 12:18, 12:18] = 1, 2
    lost = np.where(labels == 2, 0, labels)
    assert size_error(labels, lost, 2, judged=labels) == pytest.approx(np.log(2 * 36) / 2)
    assert length_error(labels, lost, 2, judged=labels) == pytest.approx(np.log(6) / 2)
    assert (size_error(lost, lost, 2, judged=labels), length_error(lost, lost, 2, judged=labels)) == (0, 0)
    fringe = labels.copy()
    fringe[:, 0, :10] = 3
    assert size_error(labels, fringe, 3, judged=labels) == length_error(labels, fringe, 3, judged=labels) == 0


def test_rows_on_record_are_not_replaced_by_some_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.json"
    path.write_text(json.dumps({"loras": {}, "seed": 0, "pairs": 12, "rows": [{"variant": "rgb"}, {"variant": "pose"}]}))
    monkeypatch.setattr(sys, "argv", ["quality", "--json", str(path), "--variants", "pose"])
    with pytest.raises(SystemExit):
        quality.main()
    assert "holds rows of rgb, that this run would replace; name another file, or delete this one" in capsys.readouterr().err
    path.write_text("{}")
    with pytest.raises(SystemExit, match=r"can't be read .*, expected what an earlier run wrote"):
        quality.main()


def test_pairs_without_a_figure_are_left_out_of_its_mean_only() -> None:
    one = dict.fromkeys(FIGURES, 2.0)
    means = mean_figures([one, one | {"iou": float("nan"), "psnr": 4.0}])
    assert (means["iou"], means["psnr"]) == (2.0, 3.0)
    with pytest.raises(ValueError, match=r"got psnr of \[inf, nan\] over 2 pairs, expected finite figures"):
        mean_figures([one | {"psnr": float("inf")}, one | {"psnr": float("nan")}])


def test_a_figure_that_no_pair_has_is_left_open_and_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = dict.fromkeys(FIGURES, 2.0)
    rows = [
        {"variant": "rgb", "driver": "bird", "reference": "bird", "n": 2, **mean_figures([figures, figures])}
        for figures in (one | {"iou": float("nan")}, one)
    ]
    monkeypatch.setattr(quality, "measure", lambda *_: iter(rows))
    monkeypatch.setattr(sys, "argv", ["quality", "--json", str(tmp_path / "quality.json")])
    quality.main()
    assert [row["iou"] for row in json.loads((tmp_path / "quality.json").read_text())["rows"]] == [None, 2.0]
    table = [line.split()[3:] for line in capsys.readouterr().out.splitlines()]
    assert [line[FIGURES.index("iou")] for line in table] == ["iou", "-", "2.000"]


def test_another_seed_draws_other_pairs_and_the_same_seed_the_same() -> None:
    assert (sample_pair(3, 0, 0).truth == sample_pair(3, 0, 0).truth).all()
    assert not np.array_equal(sample_pair(3, 0, 0).truth, sample_pair(4, 0, 0).truth)


def moving_block(way: np.ndarray) -> np.ndarray:
    """Labels with part 1 as a block that goes along `way`, (T, 2) of x and y."""
    labels = np.zeros((len(way), 40, 40), np.uint8)
    for frame, (x, y) in zip(labels, way.astype(int), strict=True):
        frame[y : y + 5, x : x + 5] = 1
    return labels


def test_motion_agrees_with_itself_wherever_it_is() -> None:
    way = np.stack([np.linspace(5, 25, 9), 15 + 8 * np.sin(np.linspace(0, 3, 9))], 1)
    true = moving_block(way)
    assert motion_agreement(true, true, [1]) == pytest.approx(1)
    assert motion_agreement(moving_block(way + 6), true, [1]) == pytest.approx(1, abs=0.02), "the same way at another place"
    assert motion_agreement(moving_block(way[::-1]), true, [1]) < -0.3, "the way back"
    assert motion_agreement(np.broadcast_to(true[0], true.shape), true, [1]) == 0, "held still"
    assert motion_agreement(np.zeros_like(true), true, [1]) == 0, "not there"
    assert np.isnan(motion_agreement(true, true, []))
