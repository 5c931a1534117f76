"""What each motion context costs, against plain image-to-video of the same size and length; all figures are ratios.

    python run.py bench speed --json speed.json --plot speed.png

Steps of the sampler, the VAE's work and whole runs in a real server on the small backbone, in turn, the lead-in sampled in all of
them; steps of blocks as wide as a large network's, with random weights; then steps of training, and the drawing of skeletons.

How much a context costs hangs on how much of a step is attention, and on how many tokens a frame has. In Wan's 14B networks at
832x480 and 81 frames, 32,760 tokens, 53% of the operations are attention. On an NVIDIA or AMD GPU two of their blocks are timed at
that size, or as many as `--layers` says: with all 40 it counts too whether the driver's keys and values have to come from RAM. On
all else it is one block of half the width with half the tokens, of which attention is as large a share. Those are `step_ratio`. In
the small backbone attention has that share at 2,016 tokens, the largest of its sizes, but a frame has 96 of them there instead of
1,560, with which a CPU's attention is slow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import pose_draw
from benchmarks.speed import host, network
from dreamactor_core.motion_context import CONTEXTS
from headless.atomic import atomic


def measure(seed: int, layers: int | None = None) -> list[dict[str, Any]]:
    """The rows of `host.measure` and `network.measure`, and `pose_draw` with frames a second and the ratio to other drawing."""
    rows = [*host.measure(seed, layers), network.measure()]
    return [*rows, {"what": "pose_draw", **pose_draw.measure(seed)}]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file holds: `step_ratio` by context with the large network's blocks, `vae_ratio` of the longest clips, and the
    rows."""
    by = {row["what"]: row for row in rows}  # the last of several sizes
    medians = {what: {name: one["median"] for name, one in by[what]["ratios"].items()} for what in ("large", "vae")}
    return {"step_ratio": medians["large"], "vae_ratio": medians["vae"], "rows": rows}


def table(rows: list[dict[str, Any]]) -> str:
    """For people."""
    lines = [f"{'':22}{'size':10}{'frames':>7}" + "".join(f"{name:>18}" for name in CONTEXTS)]

    def line(what: str, values: dict[str, float], row: dict[str, Any]) -> None:
        size = f"{row['width']}x{row['height']}" if "width" in row else ""
        cells = "".join(f"{values[name]:18.2f}" if name in values else f"{'':18}" for name in CONTEXTS)
        lines.append(f"{what:22}{size:10}{row.get('frames', ''):>7}{cells}")

    for row in rows:
        for key in ("ratios", "bare"):
            if key in row:
                named = {"ratios": row["what"], "bare": "train / bare network"}[key]
                line(named, {name: one["median"] for name, one in row[key].items()}, row)
        for key in ("memory", "driver_pass"):
            if key in row:
                line(key.replace("_", " "), {name: one["median"] for name, one in row[key].items()}, row)
        for name, split in row.get("split", {}).items():
            parts = sorted(split.items(), key=lambda item: -item[1])
            lines.append(f"  {name}: " + ", ".join(f"{title} {share:.1%}" for title, share in parts if share >= 0.005))
        if row["what"] == "pose_draw":
            ratio = f", {row['ratio']['median']:.1f} times controlnet-aux's" if "ratio" in row else ""
            lines.append(f"skeletons are drawn at {row['dwpose']['median']:.0f} frames/s{ratio}")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Ratios over the number of tokens; stars are the large network's blocks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name in CONTEXTS:
        for what, style in (("step", {"marker": "o", "label": name}), ("large", {"marker": "*", "markersize": 11})):
            own = sorted((row["tokens"], row["ratios"][name]["median"]) for row in rows if row["what"] == what)
            axes.plot(*zip(*own, strict=True), **style, color=f"C{list(CONTEXTS).index(name)}")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="tokens of the result", ylabel="step / plain image-to-video step", xscale="log")
    axes.legend()
    with atomic(path) as partial:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write ratios and rows there")
    parser.add_argument("--plot", type=Path, help="draw the ratios over the number of tokens, as .png or .svg")
    more = "2 on an NVIDIA or AMD GPU, else 1; each of the former is 0.7 GB in the temporary folder"
    parser.add_argument("--layers", type=int, help=f"blocks of the large network: {more}")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}, expected 0 or more")
    if args.layers is not None and args.layers < 1:
        parser.error(f"--layers is {args.layers}, expected 1 or more")
    rows = measure(args.seed, args.layers)
    print(table(rows))
    if args.json:
        with atomic(args.json) as partial:
            partial.write_text(json.dumps(summary(rows), indent=2) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    sys.exit(main())
