"""The paper's comparisons on the drawn world, where the truth is known: one row for each LoRA of a recipe.

    python -m training ablate training/recipes/marionette.yaml    # trains them
    python run.py bench evidence --json docs/evidence.json --report docs/evidence.md

Every row is judged on the same held-out pairs: identities and motions of the test split, which no training seed reaches. Human
drivers move humans and cartoons; non-human drivers (quadrupeds, birds) another animal of their kind. The paper's pose variant is
driven by what an estimator of human poses finds, and such a one finds no joints on an animal: with non-human drivers its skeleton
video is black. What it would do with an estimator that knows animals stands beside it, as `nonhuman_skeleton`, for the rows
that are compared in it. Proportions are not retargeted, as how a driver's build leaks into the result is part of what is asked.
How sizes are kept with Pose Retarget, and by a LoRA that was trained without augmentation, `bench quality` tells (`--lora`).

What the JSON file holds already of this recipe is not measured again: trainings may be done, and their LoRAs deleted, one after the
other. Beside the file, in a folder of its name, lies the line of each row in the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import safe_open
from scipy.stats import bootstrap

from benchmarks import evidence_report as report
from benchmarks import kept
from benchmarks.figures import Pair, judge, mean_of, palette_of
from benchmarks.measures import motion_agreement, moving_parts, segment
from dreamactor_core.augment import normalise
from dreamactor_core.clips import ClipSpec
from dreamactor_core.contract import Contract
from dreamactor_core.layout import get_layout
from dreamactor_core.motion_context import get_context
from dreamactor_core.poses import PoseSequence, from_body_joints
from dreamactor_core.skeleton import draw_skeleton
from headless.atomic import atomic
from headless.media import MediaError, read_image, write_image
from training import ablate, backbones, config
from training.errors import UserError
from training.flow import Sampler
from training.hashing import sha256
from training.latents.encode import conditions_of
from training.lora_file import add_lora, load_lora, rank_of
from training.marionette.characters import PARTS, Plan
from training.marionette.world import FPS, FRAMES, HEIGHT, LEAD_IN, WIDTH, rng_for, sample_scene
from training.sampling import sample

ROOT = Path(__file__).resolve().parents[1]
RECIPE, LORAS = ROOT / "training" / "recipes" / "marionette.yaml", ROOT / "runs" / "evidence"
ROWS = (
    "pose_full", "pose_no_norm", "pose_no_bone", "pose_no_aug", "pose_temporal", "pose_no_text", "pose_concat_text",
    "pose_full_width", "rgb_synthetic", "rgb_unfiltered", "rgb_cold", "rgb_ground_truth",
)  # fmt: skip
GROUPS: dict[str, tuple[tuple[Plan, Plan], ...]] = {
    "human": (("human", "human"), ("human", "cartoon")),
    "nonhuman": (("quadruped", "quadruped"), ("bird", "bird")),
}
"""Driver's and reference's body plan, in turn."""
ELSEWHERE = "human_elsewhere"
"""Human drivers filmed from another place: their skeletons are centred by their box, as Pose Draw does."""
SKELETON = "nonhuman_skeleton"
"""Non-human drivers as an estimator that knows animals sees them."""
TEACHER = "pose_teacher"
"""A row beside the recipe's: the pose LoRA that made the synthetic pairs and that the rgb rows begin with."""


@dataclass(frozen=True)
class More:
    """The pairs of a group seen differently: only for the rows that are compared in them, for what they cost.
    `pairs`: of `GROUPS`. `seen`: as `poses_of` has it."""

    pairs: str
    rows: tuple[str, ...]
    seen: dict[str, bool]


MORE = {
    ELSEWHERE: More("human", ("pose_full", "pose_no_norm", "pose_no_aug"), {"elsewhere": True}),
    SKELETON: More("nonhuman", (TEACHER,), {"sees_animals": True}),
}
FIGURES = (
    "psnr", "psnr_still", "psnr_other", "psnr_all", "ssim", "iou", "iou_still", "iou_other", "colour", "size",
    "size_driver", "length", "length_driver", "motion",
)  # fmt: skip
SPEC = ClipSpec(FRAMES, LEAD_IN, FPS)
_BATCH, _STREAM = 12, 7
_SHOWN = 2  # pairs of each group in the picture
_NAMES = 150  # pixels beside the picture for the rows' names


@dataclass(frozen=True)
class Sampling:
    """How results are sampled."""

    sampler: Sampler
    steps: int
    shift: float


SAMPLING = Sampling("lcm", 8, 8.0)
"""As in the small workflows."""


@dataclass
class Network:
    """A LoRA on its backbone, ready to sample."""

    contract: Contract
    backbone: backbones.VideoBackbone
    model: torch.nn.Module
    encoders: backbones.base.Encoders
    text: str
    sampling: Sampling


def sample_pairs(group: str, seed: int, count: int) -> list[Pair]:
    """Held-out pairs of a group of drivers."""
    pairs = []
    for index in range(count):
        driver_plan, plan = GROUPS[group][index % len(GROUPS[group])]
        rng = rng_for("test", _STREAM, seed, list(GROUPS).index(group), index)
        scene = sample_scene(rng, plan)
        pairs.append(Pair(scene, scene.with_character(rng, driver_plan), *scene.draw()))
    return pairs


def file_of(loras: Path, row: str) -> tuple[Path, config.Config]:
    """A row's LoRA, and the settings that it was trained with. Raises UserError, with the command that makes it, when it is
    missing, not finished, or of another version of the recipe."""
    recipe = ablate.load(RECIPE, loras)
    if row == TEACHER:
        settings = ablate.settings_of(recipe, "synthetic")
        return ROOT / settings.synthesize.lora, settings
    if not ablate.is_finished(recipe, row):
        where = "" if loras == LORAS else f" --out {loras}"
        raise UserError(
            f"{ablate.folder_of(recipe, row)} holds no finished LoRA of this recipe; python -m training ablate "
            f"{RECIPE.relative_to(ROOT).as_posix()} --run {row}{where}"
        )
    return loras / row / "train" / "lora.safetensors", ablate.settings_of(recipe, row)


def load(path: Path, settings: config.Config, sampling: Sampling) -> Network:
    """A LoRA on its backbone, and how it is to be sampled."""
    with safe_open(path, "pt") as file:
        contract = Contract.from_metadata(file.metadata(), path.name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.get(settings.backbone)
    model = backbone.load_transformer()
    backbone.use_context(model, get_context(contract.motion_context))
    add_lora(model, rank_of(path), backbone.family)
    load_lora(model, path, backbone.rename)
    model.fuse_lora()
    model.unload_lora()
    text = "none" if settings.train.drop_text == 1 else settings.cache.text
    return Network(contract, backbone, model.to(device).eval(), backbone.load_encoders(device), text, sampling)


def prompt_of(pair: Pair, text: str) -> str:
    """The prompt as a row's LoRA was trained with."""
    if text == "none":
        return ""
    if text == "concatenated":
        return f"the character {pair.scene.motion.name}. a {pair.scene.character.plan}"
    return pair.scene.describe()


def poses_of(pair: Pair, sees_animals: bool = False, elsewhere: bool = False) -> PoseSequence:
    """The driver's poses as a pose row is shown them."""
    joints = pair.driver.keypoints()[LEAD_IN:]
    if pair.driver.motion.family != "biped" and not sees_animals:
        joints = np.zeros_like(joints)
    poses = from_body_joints(joints, HEIGHT, WIDTH)
    return normalise(poses, HEIGHT, WIDTH) if elsewhere else poses


def driver_of(pair: Pair, variant: str, **seen: bool) -> np.ndarray:
    """What drives: RGB uint8 (T - lead-in, H, W, 3). `seen`: as `poses_of` has it."""
    return pair.driver.draw()[0][LEAD_IN:] if variant == "rgb" else draw_skeleton(poses_of(pair, **seen), HEIGHT, WIDTH)


@torch.no_grad()
def generate(network: Network, pairs: list[Pair], drivers: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Results without their lead-in, RGB uint8 (T - lead-in, H, W, 3) each."""
    layout, results = get_layout(network.contract.layout, network.contract.motion_context), []
    for start in range(0, len(pairs), _BATCH):
        part = range(start, min(start + _BATCH, len(pairs)))
        made = conditions_of(network.encoders, layout, [pairs[k].truth[0] for k in part], [drivers[k] for k in part], SPEC)
        given = torch.stack([one.pop("condition") for one in made])
        texts = network.encoders.text([prompt_of(pairs[k], network.text) for k in part])
        contexts = [text | one for text, one in zip(texts, made, strict=True)]
        seeds = [seed * 100_000 + 2 * k for k in part]  # every other one: lcm takes the next for its later noise
        latents = sample(
            network.backbone, network.model, layout, given, network.backbone.collate(contexts),
            network.sampling.steps, network.sampling.shift, seeds, sampler=network.sampling.sampler,
        )  # fmt: skip
        for pixels in network.encoders.decode(layout.crop(latents))[:, :, LEAD_IN:]:
            results.append(((pixels.permute(1, 2, 3, 0).cpu().numpy() + 1) * 127.5).round().astype(np.uint8))
    return results


def summary(figures: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the pairs that have a figure, the 95% bootstrap interval of each that is a measure of the result, and each
    pair's PSNR. Raises ValueError for an infinite one."""
    made: dict[str, Any] = {"n": len(figures)} | {key: mean_of(key, [f[key] for f in figures]) for key in FIGURES}
    for key in ("psnr", "ssim", "iou", "colour", "size", "length", "motion"):
        values = np.array([f[key] for f in figures if np.isfinite(f[key])])
        if len(values) > 1:
            interval = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
            made[f"{key}_ci"] = [round(float(interval.low), 4), round(float(interval.high), 4)]
    made["psnr_pairs"] = [round(float(f["psnr"]), 3) if np.isfinite(f["psnr"]) else None for f in figures]
    return made


def measure_group(network: Network, pairs: list[Pair], seed: int, **seen: bool) -> tuple[list[dict[str, float]], list[np.ndarray]]:
    """Figures of each pair, and the results. `seen`: as `poses_of` has it."""
    drivers = [driver_of(pair, network.contract.variant, **seen) for pair in pairs]
    results = generate(network, pairs, drivers, seed)
    # another pair's driver of the same body plans: two further on, as plans take turns
    turned = drivers[2:] + drivers[:2]
    black = not any(driver.any() for driver in drivers)
    alone = seen.get("elsewhere", False)  # no other driver is tried
    others = results if black or alone else generate(network, pairs, turned, seed)
    figures = []
    for pair, result, other in zip(pairs, results, others, strict=True):
        found = judge(pair, result, other)
        if alone:
            found |= {"psnr_other": float("nan"), "iou_other": float("nan")}
        labels, parts = pair.labels[LEAD_IN:], len(PARTS[pair.scene.character.plan])
        moving = moving_parts(labels, pair.labels[0], parts)
        found["motion"] = motion_agreement(segment(result, palette_of(pair)), labels, moving)
        figures.append(found)
    return figures, results


def version(recipe: ablate.Recipe, row: str) -> str | None:
    """A hash of what a row's figures come of; None when there is no such row. Raises UserError for a missing file."""
    if row == TEACHER:
        return sha256(ROOT / ablate.settings_of(recipe, "synthetic").synthesize.lora)[:16]
    return kept.version_of(recipe, row) if row in ROWS else None


def measure(loras: Path, row: str, seed: int, count: int) -> tuple[dict[str, Any], np.ndarray]:
    """A row of the table, and its line in the picture."""
    network = load(*file_of(loras, row), SAMPLING)
    found: dict[str, Any] = {"row": row, "version": version(ablate.load(RECIPE, loras), row)}
    shown, every = {}, []
    for group in GROUPS:
        pairs = sample_pairs(group, seed, count)
        figures, results = measure_group(network, pairs, seed)
        found[group], shown[group] = summary(figures), results[:_SHOWN]
        every += figures
    for name, more in MORE.items():
        if row in more.rows:
            found[name] = summary(measure_group(network, sample_pairs(more.pairs, seed, count), seed, **more.seen)[0])
    return found | {key: value for key, value in summary(every).items()}, line(shown)


def line(shown: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Three frames of each clip of each group, side by side: RGB uint8 (H, W, 3)."""
    return np.concatenate([frame for group in GROUPS for clip in shown[group] for frame in clip[[4, 9, 14]]], 1)


def picture(lines: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """For the first pairs of each group: the driver, the truth, and every row's result."""
    pairs = {group: sample_pairs(group, seed, _SHOWN) for group in GROUPS}
    drivers = line({group: [pair.driver.draw()[0][LEAD_IN:] for pair in own] for group, own in pairs.items()})
    truths = line({group: [pair.truth[LEAD_IN:] for pair in own] for group, own in pairs.items()})
    every = {"driver": drivers, "truth": truths, **lines}
    grid = np.concatenate(list(every.values()), 0)
    names = np.full((grid.shape[0], _NAMES, 3), 255, np.uint8)
    for number, name in enumerate(every):
        place = (6, number * HEIGHT + HEIGHT // 2)
        cv2.putText(names, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([names, grid], 1)


def table(rows: list[dict[str, Any]]) -> str:
    """For a terminal."""
    keys = ("psnr", "psnr_still", "psnr_other", "ssim", "iou", "colour", "size", "length", "motion")
    lines = [f"{'row':18}{'drivers':20}" + "".join(f"{key:>12}" for key in keys)]
    for row in rows:
        for group in (group for group in (*GROUPS, *MORE) if group in row):
            values = ("-" if row[group].get(key) is None else f"{row[group][key]:.3f}" for key in keys)
            lines.append(f"{row['row']:18}{group:20}" + "".join(f"{value:>12}" for value in values))
    return "\n".join(lines)


def held_out(parser: argparse.ArgumentParser, loras: Path) -> None:
    """Arguments that name the LoRAs and the pairs that they are judged on."""
    parser.add_argument("--loras", type=Path, default=loras, help="the recipe's folder")
    parser.add_argument("--seed", type=int, default=0, help="draws another held-out set")
    parser.add_argument("--pairs", type=_even_number, default=24, help="pairs of each group of drivers")


def _even_number(text: str) -> int:
    count = int(text)
    if count < 4 or count % 2:
        said = f"{count}, expected an even number from 4 on: body plans take turns, and lend their drivers"
        raise argparse.ArgumentTypeError(said)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    held_out(parser, LORAS)
    parser.set_defaults(pairs=16)  # with 24 all rows take more than half an hour on two cores
    parser.add_argument("--rows", nargs="+", choices=(*ROWS, TEACHER), default=[*ROWS, TEACHER], help="only these")
    parser.add_argument("--json", type=Path, help="write the rows there, and leave alone those that it holds")
    parser.add_argument("--sheet", type=Path, help="write a picture of every row there")
    parser.add_argument("--report", type=Path, help="put table, comparisons and picture into this Markdown file")
    args = parser.parse_args()
    try:
        if args.report:
            report.check(args.report)
        recipe = ablate.load(RECIPE, args.loras)
        rows = kept.kept(args.json, "row", _about(args), lambda row: version(recipe, row))
        lines = {row: _read_line(args.json, row) for row in rows}
        for row in (row for row in args.rows if row in rows):
            if lacks := _lacks(row, rows[row]):
                said = f"{row} was measured before {', '.join(lacks)}, and stays as it is; to measure it again, have its LoRA"
                print(f"{said} ({report.command_of(row)}) and take the row out of {args.json}", file=sys.stderr)
        missing = [row for row in args.rows if row not in rows]
        for row in missing:
            file_of(args.loras, row)  # what is missing is said before anything is measured
        for row in missing:
            started = time.time()
            rows[row], lines[row] = measure(args.loras, row, args.seed, args.pairs)
            rows[row]["seconds"] = round(time.time() - started)
            print(f"{row}: {rows[row]['seconds']} s", file=sys.stderr, flush=True)
            if args.json:  # after every row: what is measured is not lost
                _line_file(args.json, row).parent.mkdir(parents=True, exist_ok=True)
                write_image(_line_file(args.json, row), lines[row])
                with atomic(args.json) as partial:
                    partial.write_text(json.dumps(_found(args, rows), indent=2) + "\n", "utf-8")
    except UserError as error:
        sys.exit(f"error: {error}")
    found = _found(args, rows)
    shown = picture({row["row"]: lines[row["row"]] for row in found["rows"]}, args.seed)
    if args.sheet:
        write_image(args.sheet, shown)
    if args.report:
        write_image(args.report.with_suffix(".png"), shown)
        report.put(args.report, found)
    print(table(found["rows"]))


def _lacks(row: str, found: dict[str, Any]) -> list[str]:
    """Groups and figures that a measured row does not have, as it was measured before they were."""
    groups = [name for name, more in MORE.items() if row in more.rows and name not in found]
    return groups + [key for key in FIGURES if key not in found["human"]]


def _line_file(path: Path, row: str) -> Path:
    """Where a row's line in the picture is, beside the JSON file."""
    return path.with_suffix("") / f"{row}.png"


def _read_line(path: Path, row: str) -> np.ndarray:
    """A row's line in the picture. Raises UserError when it is not there."""
    file = _line_file(path, row)
    try:
        return read_image(file)
    except MediaError as error:
        raise UserError(f"{path} holds the row {row}, but not its picture ({error}); put that back, or take the row out") from error


def _found(args: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file holds: rows in the table's order."""
    return _about(args) | {"rows": [rows[row] for row in (*ROWS, TEACHER) if row in rows]}


def _about(args: argparse.Namespace) -> dict[str, Any]:
    """What the JSON file says of all its rows."""
    return {"seed": args.seed, "pairs": args.pairs, **asdict(SAMPLING)}


if __name__ == "__main__":
    main()
