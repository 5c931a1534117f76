"""How well LoRAs of each motion context follow a driver, beside what their steps cost.

    python -m training ablate training/recipes/motion_context.yaml    # trains them
    python run.py bench speed --json speed.json
    python run.py bench context --json context.json --speed speed.json --plot docs/motion_context.png

All are judged on the same held-out pairs as the human drivers of `bench evidence`. A context is set against the paper's only where
both had the same number of training steps, pair by pair, on average over all training seeds that both have. What the file holds
already of this recipe is not measured again, so that the trainings may be done, and their LoRAs deleted, one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from benchmarks import evidence, kept
from dreamactor_core.motion_context import CONTEXTS, JOINT
from headless.atomic import atomic
from training import ablate
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
RECIPE, LORAS = ROOT / "training" / "recipes" / "motion_context.yaml", ROOT / "runs" / "context"
FIGURES = ("psnr", "iou")
SAMPLING = evidence.Sampling("euler", 8, 5.0)
"""Of every row in docs/motion_context.json."""


def trained(recipe: ablate.Recipe) -> list[str]:
    """The recipe's runs that end with a LoRA."""
    return [name for name, run in recipe.runs.items() if run.verbs[-1] == "train"]


def version(recipe: ablate.Recipe, name: str) -> str | None:
    """Of the recipe's run of that name; None when there is none."""
    return kept.version_of(recipe, name) if name in recipe.runs else None


def finished(recipe: ablate.Recipe, rows: Collection[str] = ()) -> list[str]:
    """The runs that are there, or whose `rows` are. Raises UserError, with the command that makes them, when none is."""
    found = [name for name in trained(recipe) if name in rows or ablate.is_finished(recipe, name)]
    if not found:
        where = "" if recipe.out.absolute() == LORAS else f" --out {recipe.out}"
        command = f"python -m training ablate {RECIPE.relative_to(ROOT).as_posix()}{where}"
        raise UserError(f"{recipe.out} holds no finished LoRA; {command} makes them")
    return found


def measure(recipe: ablate.Recipe, name: str, seed: int, count: int) -> dict[str, Any]:
    """One run: its version, context, training steps and seed; means, intervals and values of every pair of FIGURES."""
    settings = ablate.settings_of(recipe, name)
    network = evidence.load(ablate.folder_of(recipe, name) / "train" / "lora.safetensors", settings, SAMPLING)
    pairs = evidence.sample_pairs("human", seed, count)
    figures, _ = evidence.measure_group(network, pairs, seed)
    about = {"run": name, "version": version(recipe, name), "context": settings.motion_context}
    about |= {"steps": settings.train.steps, "seed": settings.train.seed}
    found = evidence.summary(figures)
    kept = {key: found[key] for key in ("n", "psnr_still", "psnr_other", *FIGURES, *(f"{key}_ci" for key in FIGURES))}
    values = {f"{key}_pairs": [round(float(one[key]), 4) if np.isfinite(one[key]) else None for one in figures] for key in FIGURES}
    return about | kept | values


def against_joint(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every other context and budget: mean of the differences to the paper's, and their 95% bootstrap intervals over the pairs.
    What a pair's difference is, is its mean over the training seeds: too few are there for an interval over those too."""
    by = {(row["context"], row["steps"], row["seed"]): row for row in rows}
    found = []
    for context, steps in sorted({(row["context"], row["steps"]) for row in rows if row["context"] != JOINT.name}):
        seeds = [s for c, n, s in by if (c, n) == (context, steps) and (JOINT.name, steps, s) in by]
        if not seeds:
            continue
        line: dict[str, Any] = {"context": context, "steps": steps, "seeds": sorted(seeds)}
        for key in FIGURES:
            own, joint = (
                np.array([by[name, steps, s][f"{key}_pairs"] for s in seeds], float) for name in (context, JOINT.name)
            )
            apart = own - joint  # not a number where a pair has no such figure
            values = np.array([pair[np.isfinite(pair)].mean() for pair in apart.T if np.isfinite(pair).any()])
            interval = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
            line[key] = round(float(values.mean()), 4)
            line[f"{key}_ci"] = [round(float(interval.low), 4), round(float(interval.high), 4)]
        found.append(line)
    return found


def plot(rows: list[dict[str, Any]], ratio: dict[str, float], path: Path) -> None:
    """PSNR over the cost of a step, a point for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    budgets = sorted({row["steps"] for row in rows})
    for place, name in enumerate(CONTEXTS):
        own = [row for row in rows if row["context"] == name]
        if not own:
            continue
        colour = f"C{place}"  # as in the plot of bench speed
        low = [row["psnr"] - row["psnr_ci"][0] for row in own]
        high = [row["psnr_ci"][1] - row["psnr"] for row in own]
        axes.errorbar([ratio[name]] * len(own), [row["psnr"] for row in own], [low, high], fmt="none", alpha=0.4, ecolor=colour)
        for number, steps in enumerate(budgets):
            seeds = [row["psnr"] for row in own if row["steps"] == steps]
            if seeds:
                axes.plot([ratio[name]] * len(seeds), seeds, "os^D"[number % 4], color=colour, label=f"{name}, {steps} steps")
    axes.set(xlabel="step / plain image-to-video step", ylabel="PSNR of the moving region, dB")
    figure.legend(loc="outside right upper", fontsize=8)
    with atomic(path) as partial:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png", dpi=120)
    pyplot.close(figure)


def table(rows: list[dict[str, Any]], compared: list[dict[str, Any]]) -> str:
    """For a terminal."""
    lines = [f"{'run':26}{'context':18}{'steps':>6}{'seed':>5}{'psnr':>8}{'still':>8}{'other':>8}{'iou':>8}"]
    for row in rows:
        figures = "".join(f"{row[key]:8.3f}" for key in ("psnr", "psnr_still", "psnr_other", "iou"))
        lines.append(f"{row['run']:26}{row['context']:18}{row['steps']:6}{row['seed']:5}{figures}")
    for line in compared:
        parts = ", ".join(f"{key} {line[key]:+.3f} [{line[f'{key}_ci'][0]:+.3f}, {line[f'{key}_ci'][1]:+.3f}]" for key in FIGURES)
        lines.append(f"{line['context']} - joint, {line['steps']} steps, seeds {line['seeds']}: {parts}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    evidence.held_out(parser, LORAS)
    parser.add_argument("--json", type=Path, help="write rows and comparisons there")
    parser.add_argument("--speed", type=Path, help="what bench speed wrote, for the plot")
    parser.add_argument("--plot", type=Path, help="draw PSNR over the cost of a step, as .png or .svg")
    args = parser.parse_args()
    if args.plot and not args.speed:
        parser.error("--plot is given without --speed, expected the file that `bench speed --json FILE` wrote, for its ratios")
    try:
        ratio = {name: json.loads(args.speed.read_text("utf-8"))["step_ratio"][name] for name in CONTEXTS} if args.speed else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: --speed {args.speed} can't be read ({error!r}), expected what `bench speed --json FILE` wrote")
    try:
        recipe = ablate.load(RECIPE, args.loras)
        about = {"seed": args.seed, "pairs": args.pairs, **asdict(SAMPLING)}
        by = kept.kept(args.json, "run", about, lambda name: version(recipe, name))
        for name in finished(recipe, by):
            if name in by:
                continue
            started = time.time()
            by[name] = measure(recipe, name, args.seed, args.pairs)
            print(f"{name}: {time.time() - started:.0f} s", file=sys.stderr, flush=True)
            rows = [by[run] for run in trained(recipe) if run in by]
            if args.json:
                found = about | {"rows": rows, "against_joint": against_joint(rows)}
                with atomic(args.json) as partial:
                    partial.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    except UserError as error:
        sys.exit(f"error: {error}")
    rows = [by[run] for run in trained(recipe) if run in by]
    compared = against_joint(rows)
    print(table(rows, compared))
    if args.plot:
        plot(rows, ratio, args.plot)


if __name__ == "__main__":
    main()
