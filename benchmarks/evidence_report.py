"""The figures of bench evidence as Markdown: put between two marks of a file, whose other text people write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from headless.atomic import atomic
from training.errors import UserError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_COLUMNS = (
    ("psnr", "PSNR", 2),
    ("ssim", "SSIM", 3),
    ("iou", "part IoU", 3),
    ("colour", "colour error", 3),
    ("size", "area error", 3),
    ("length", "length error", 3),
    ("motion", "motion", 3),
)
_ENDS = ("rgb_synthetic", "rgb_ground_truth")
_GROUPS = {
    "human": "Human drivers (of humans and cartoons)",
    "human_elsewhere": "Human drivers filmed from another place: skeletons centred by their box",
    "nonhuman": "Non-human drivers (quadrupeds, birds); skeletons are those that an estimator of people finds: none",
    "nonhuman_skeleton": "Non-human drivers, with the skeletons of an estimator that knows animals",
}
COMPARISONS = (
    ("spatial over temporal layout", "pose_full", "pose_temporal", "human", True),
    ("augmentation over none", "pose_full", "pose_no_aug", "human", True),
    ("augmentation over none", "pose_full", "pose_no_aug", "human_elsewhere", True),
    ("normalisation over none", "pose_full", "pose_no_norm", "human", True),
    ("normalisation over none", "pose_full", "pose_no_norm", "human_elsewhere", True),
    ("bone scaling over none", "pose_full", "pose_no_bone", "human", True),
    ("text over none", "pose_full", "pose_no_text", "human", True),
    ("text over none", "pose_full", "pose_no_text", "nonhuman", True),
    ("fused over concatenated text", "pose_full", "pose_concat_text", "human", True),
    ("fused over concatenated text", "pose_full", "pose_concat_text", "nonhuman", True),
    ("loss over the generated half alone", "pose_full", "pose_full_width", "human", False),
    ("rgb over pose", "rgb_synthetic", "pose_full", "nonhuman", True),
    ("rgb over its teacher", "rgb_synthetic", "pose_teacher", "human", True),
    ("rgb over its teacher", "rgb_synthetic", "pose_teacher", "nonhuman", True),
    ("rgb over its teacher, which sees animals' skeletons", "rgb_synthetic", "pose_teacher", "nonhuman_skeleton", False),
    ("true over synthetic pairs", "rgb_ground_truth", "rgb_synthetic", "human", False),
    ("filter over none", "rgb_synthetic", "rgb_unfiltered", None, False),
    ("warm over cold start", "rgb_synthetic", "rgb_cold", None, False),
)
"""What is claimed, the row that should be better and the other, drivers (None: all), and whether the paper reports it."""


def check(path: Path) -> str:
    """The file's text. Raises UserError when it lacks the marks."""
    text = path.read_text("utf-8") if path.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{path} is to have one line {BEGIN} and after it one {END}, between which the figures go; add them")
    return text


def put(path: Path, found: dict[str, Any]) -> None:
    """Replace what is between the marks. Raises UserError when they are missing."""
    text = check(path)
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    with atomic(path) as partial:
        partial.write_text(f"{before}\n{markdown(found, path.with_suffix('.png').name)}\n{after}", "utf-8")


def _value(figures: dict[str, Any], key: str, digits: int) -> str:
    if figures.get(key) is None:  # rows measured earlier lack figures that are newer
        return "-"
    low, high = figures.get(f"{key}_ci", (None, None))
    interval = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    build = figures.get(f"{key}_driver")
    return f"{figures[key]:.{digits}f}{interval}" + ("" if build is None else f" ({build:.2f})")


def _controls(figures: dict[str, Any]) -> str:
    return " / ".join("-" if figures[key] is None else f"{figures[key]:.2f}" for key in ("psnr_still", "psnr_other"))


def _table(rows: list[dict[str, Any]], group: str) -> list[str]:
    head = ["row", _COLUMNS[0][1], "held still / another driver", *(name for _, name, _ in _COLUMNS[1:])]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in (row for row in rows if group in row):
        first, *others = (_value(row[group], key, digits) for key, _, digits in _COLUMNS)
        lines.append(f"| {' | '.join([row['row'], first, _controls(row[group]), *others])} |")
    return lines


def difference(better: dict[str, Any], worse: dict[str, Any]) -> tuple[float, float, float]:
    """By how many dB of PSNR the first row is above the other: mean over the same pairs, and its 95% bootstrap interval."""
    both = zip(better["psnr_pairs"], worse["psnr_pairs"], strict=True)
    values = np.array([a - b for a, b in both if a is not None and b is not None])
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return float(values.mean()), float(found.low), float(found.high)


def verdict(better: dict[str, Any], worse: dict[str, Any]) -> str:
    """Whether the order holds: `yes, intervals apart`; `yes, pair by pair` where only the interval of the difference is clear of
    0; `not decided`; `no, the other way`."""
    _, low, high = difference(better, worse)
    if low > 0:
        return "yes, intervals apart" if better["psnr_ci"][0] > worse["psnr_ci"][1] else "yes, pair by pair"
    return "no, the other way" if high < 0 else "not decided"


def _figures(row: dict[str, Any], group: str | None) -> dict[str, Any] | None:
    """Of a group of drivers, None: all. Raw video has no skeleton: an rgb row has one figure for a group's pairs. None for a group
    that the row was not measured with."""
    if group is None or group in row:
        return row if group is None else row[group]
    return row.get(group.partition("_")[0]) if row["row"].startswith("rgb") else None


def _comparisons(rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| claim | drivers | rows | better by | holds | in the paper |", "|---|---|---|---|---|---|"]
    for claim, one, other, group, papers in COMPARISONS:
        if one not in rows or other not in rows:
            continue
        better, worse = (_figures(rows[name], group) for name in (one, other))
        if better is None or worse is None:
            gain, holds = "-", "not measured"
        else:
            mean, low, high = (f"{value:+.2f}" for value in difference(better, worse))
            gain, holds = f"{mean} [{low}, {high}] dB", verdict(better, worse)
        lines.append(f"| {claim} | {group or 'all'} | {one}, {other} | {gain} | {holds} | {'yes' if papers else 'not compared'} |")
    return lines


def gap_share(synthetic: dict[str, Any], ceiling: dict[str, Any]) -> float:
    """How much of the way from the reference held still to the LoRA of ground-truth pairs synthetic pairs go, in PSNR."""
    return (synthetic["psnr"] - synthetic["psnr_still"]) / (ceiling["psnr"] - ceiling["psnr_still"])


def command_of(row: str) -> str:
    """What trains a row's LoRA. The teacher ships, and is of another recipe."""
    recipe, run = ("motion_context", "cached_more") if row == "pose_teacher" else ("marionette", row)
    return f"python -m training ablate training/recipes/{recipe}.yaml --run {run}"


def markdown(found: dict[str, Any], picture: str) -> str:
    """All of it."""
    rows = {row["row"]: row for row in found["rows"]}
    lines = [
        f"`python3 run.py bench evidence --seed {found['seed']} --pairs {found['pairs']}`: {found['pairs']} held-out pairs for "
        f"each kind of driver, the same for every row, {found['steps']} sampling steps of `{found['sampler']}` at a shift of "
        f"{found['shift']:g}. "
        "PSNR in dB over the region that moves; in square brackets 95% bootstrap intervals over the pairs. "
        "Colour error: 0 to 1; area and length error: mean |log ratio| of the parts' "
        "to the truth's; in all three lower is better; in round brackets what the driver's own build would measure; "
        "motion: correlation of the parts' paths with the truth's. "
        "Each row is one training run: intervals say how sure the figures of these LoRAs are, not what another training seed "
        "would give.",
    ]
    lines += ["", "What trains a row's LoRA again:", "", *(f"    {command_of(row)}" for row in rows)]
    for group, title in ((group, title) for group, title in _GROUPS.items() if any(group in row for row in found["rows"])):
        lines += ["", f"### {title}", "", *_table(found["rows"], group)]
    lines += ["", "### Comparisons", "", *_comparisons(rows)]
    if {"rgb_synthetic", "rgb_ground_truth"} <= rows.keys():
        shares = [
            f"{group or 'all'} drivers {gap_share(*(rows[n] if group is None else rows[n][group] for n in _ENDS)):.0%}"
            for group in (None, "human", "nonhuman")
        ]
        lines += ["", f"Of the way from the reference held still to the ceiling, synthetic pairs go: {', '.join(shares)}."]
    lines += ["", f"![driver, truth and every row's result; two pairs of human and two of non-human drivers]({picture})"]
    return "\n".join(lines)
