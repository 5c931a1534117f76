"""The figures of a result of the drawn world, and of many: what bench quality, evidence and context report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.measures import (
    colour_error,
    length_error,
    length_errors,
    moving_parts,
    over_parts,
    part_iou,
    psnr_on,
    segment,
    size_error,
    size_errors,
    structural_similarity,
)  # fmt: skip
from headless.metrics import moving_region
from training.marionette.characters import PARTS, Plan
from training.marionette.world import LEAD_IN, Scene

FIGURES = (
    "psnr", "psnr_still", "psnr_other", "psnr_all", "ssim", "iou", "iou_still", "iou_other", "colour", "colour_vae",
    "colour_still", "size", "size_vae", "size_decoded", "size_driver", "length", "length_vae", "length_decoded", "length_driver",
)  # fmt: skip
"""Of the result against the truth as it is drawn; and of what stands beside it against that, `_still`: the reference held
still, `_other`: the result with another clip's driver, `_vae`: the truth after the VAE, which moves edges, `_driver`: the driver's
own build, as drawn. `_decoded` is of the result against the truth after the VAE, so that both are measured on decoded frames."""
_BY_PAIR = ("psnr", "size", "size_decoded", "length", "length_decoded")
"""Of these a row has each pair's as well, as `psnr_pairs`: two LoRAs measured with one seed have the same pairs, and are compared
pair by pair."""


@dataclass
class Pair:
    """A reference scene, another character doing the same, and the truth."""

    scene: Scene
    driver: Scene
    truth: np.ndarray
    labels: np.ndarray


def colours_of(pair: Pair) -> dict[int, tuple[int, int, int]]:
    """The reference's colour of each part's label."""
    return {i + 1: pair.scene.character.colours[name] for i, name in enumerate(PARTS[pair.scene.character.plan])}


def palette_of(pair: Pair) -> dict[int, list[tuple[int, int, int]]]:
    """All colours that the truth is drawn in, by label."""
    background = pair.scene.background
    palette = {label: [colour] for label, colour in colours_of(pair).items()}
    ink = [(25, 25, 30)] + ([pair.scene.character.hair] if pair.scene.character.hair else [])
    return palette | {0: [background.wall, background.ground, background.bar], 255: ink}


def judge(pair: Pair, result: np.ndarray, other: np.ndarray, round_trip: np.ndarray | None = None) -> dict[str, float]:
    """The figures of one pair, and of each part `size_of_PART` and `length_of_PART`, nan where it is not judged.

    Args:
        pair: Judged is what comes after its lead-in.
        result: RGB uint8 (T, H, W, 3).
        other: The same of another driver.
        round_trip: The truth after the VAE; None: figures that need it are left out.
    """
    truth, labels = pair.truth[LEAD_IN:], pair.labels[LEAD_IN:]
    reference, still_labels = pair.truth[0], pair.labels[0]
    held = np.broadcast_to(reference, truth.shape)
    where = moving_region(truth, reference)
    names = PARTS[pair.scene.character.plan]
    own, palette = colours_of(pair), palette_of(pair)
    parts = moving_parts(labels, still_labels, len(names))
    found = segment(result, palette)
    sizes, lengths = (errors(found, labels, len(names)) for errors in (size_errors, length_errors))
    driver = pair.driver.draw()[1][LEAD_IN:]  # what a result that took on the driver's build would measure
    figures = {
        "psnr": psnr_on(result, truth, where),
        "psnr_still": psnr_on(held, truth, where),
        "psnr_other": psnr_on(other, truth, where),
        "psnr_all": psnr_on(result, truth),
        "ssim": structural_similarity(result, truth),
        "iou": part_iou(found, labels, parts),
        "iou_still": part_iou(np.broadcast_to(still_labels, labels.shape), labels, parts),
        "iou_other": part_iou(segment(other, palette), labels, parts),
        "colour": colour_error(result, labels, own),
        "colour_still": colour_error(held, labels, own),
        "size": over_parts(sizes),
        "size_driver": size_error(driver, labels, len(names)),
        "length": over_parts(lengths),
        "length_driver": length_error(driver, labels, len(names)),
    }
    if round_trip is not None:
        decoded = segment(round_trip, palette)
        figures |= {
            "colour_vae": colour_error(round_trip, labels, own),
            "size_vae": size_error(decoded, labels, len(names)),
            "size_decoded": size_error(found, decoded, len(names), judged=labels),
            "length_vae": length_error(decoded, labels, len(names)),
            "length_decoded": length_error(found, decoded, len(names), judged=labels),
        }
    for key, errors in (("size", sizes), ("length", lengths)):
        figures |= {f"{key}_of_{name}": float(error) for name, error in zip(names, errors, strict=True)}
    return figures


def mean_of(key: str, figures: list[float]) -> float | None:
    """The mean over the pairs that have the figure: a pair in which no part moves has no `iou`. None where no pair has it.

    Raises ValueError when one is infinite, as the PSNR of a result that equals the truth.
    """
    values = np.array(figures)
    judged = values[~np.isnan(values)]
    if np.isinf(judged).any():
        raise ValueError(
            f"got {key} of {values.tolist()} over {len(values)} pairs, expected finite figures; look whether the workflow is "
            f"handed the truth that its result is judged by"
        )
    return round(float(judged.mean()), 4) if len(judged) else None


def mean_figures(figures: list[dict[str, float]]) -> dict[str, float | None]:
    """`mean_of` each of FIGURES. Raises ValueError for an infinite one."""
    return {key: mean_of(key, [one[key] for one in figures]) for key in FIGURES}


def by_pair(figures: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """Figures of each pair, None where it has none."""
    return {f"{key}_pairs": [round(f[key], 4) if np.isfinite(f[key]) else None for f in figures] for key in _BY_PAIR}


def by_part(figures: list[dict[str, float]], plan: Plan) -> dict[str, dict[str, float | None]]:
    """Mean `size` and `length` of each part of a plan over the pairs that have it, None where none has."""
    keys = ("size", "length")
    return {part: {key: mean_of(key, [f[f"{key}_of_{part}"] for f in figures]) for key in keys} for part in PARTS[plan]}
