"""What a sampling step, and the VAE's work, of each motion context cost, against plain image-to-video of the same size and length.

    python run.py bench speed --json speed.json --plot speed.png

All run in a real server on the small backbone, in turn, and only their ratios are reported. The lead-in is sampled in all of them.

How much a context costs hangs on how much of a step is attention. In Wan's 14B networks at 832x480 and 81 frames, 32,760 tokens, it
is 53% of the operations; in the small backbone it is that at 2,016 tokens, the size of `REAL`, whose ratios are `step_ratio`. Below
it the matrices rule, and above it attention does, more than it would in a large network at any size that is trained.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamactor_core.motion_context import CONTEXTS
from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from headless.atomic import atomic
from headless.client import Client, Progress, by_title, id_by_title
from headless.media import write_image
from headless.server import HostServer
from training.marionette.world import FPS, HEIGHT, WIDTH, rng_for, sample_scene

ROOT = Path(__file__).resolve().parents[1]
LORA = ROOT / "models" / "loras" / "marionette_pose.safetensors"
REAL = (128, 192, 81)
SIZES = ((64, 96, 33), (128, 192, 33), REAL, (256, 384, 49))
"""Width, height and frames, 4n+1 with the lead-in."""
STEPS, ROUNDS = 7, 3
VAE_SIZE = (64, 96, 81)
PLAIN = "plain"


class StepClock:
    """Seconds of a step of the sampler node, from its progress messages."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.seen: list[tuple[float, float]] = []  # steps done, and when

    def __call__(self, progress: Progress) -> None:
        if progress.node_id == self.node_id and progress.value:
            self.seen.append((progress.value, time.perf_counter()))

    def seconds(self) -> float:
        """Mean over all steps but the first, which loads the model and has the driver's own pass of a cached context.

        The host leaves messages out when they come fast, but never the first and the last.
        """
        (first, began), (last, ended) = self.seen[0], self.seen[-1]
        return (ended - began) / (last - first)


def write_loras(folder: Path) -> None:
    """The shipped LoRA once for each motion context: what it was trained for is nothing to its speed."""
    with safe_open(LORA, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(LORA)
    for name in CONTEXTS:
        save_file(tensors, folder / f"{name}.safetensors", metadata | {"dreamactor_m2.motion_context": name})


def graphs(width: int, height: int, frames: int, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """The shipped workflow with each motion context, and the plain one, of as many frames."""
    base = json.loads((ROOT / "workflows/api/marionette_pose.json").read_text("utf-8"))
    by_title(base, "Reference")["inputs"]["image"] = "reference0.png"
    by_title(base, "Driving poses")["inputs"]["poses"] = "poses0.json"
    by_title(base, "Skeleton")["inputs"] |= {"width": width, "height": height}
    by_title(base, "In-context conditioning")["inputs"] |= {"width": width, "height": height, "length": frames}
    by_title(base, "Sampler")["inputs"] |= {"steps": STEPS, "seed": seed}
    for title in ("Result", "Composite preview"):
        del base[id_by_title(base, title)]
    del base[id_by_title(base, "Decode")]
    saved = {"samples": [id_by_title(base, "Sampler"), 0], "filename_prefix": "speed"}
    base["save"] = {"class_type": "SaveLatent", "inputs": saved}
    made = {}
    for name in CONTEXTS:
        made[name] = copy.deepcopy(base)
        by_title(made[name], "Motion LoRA")["inputs"]["lora_name"] = f"{name}.safetensors"
    plain = copy.deepcopy(made["joint"])  # with a LoRA of the same size
    conditioning = by_title(plain, "In-context conditioning")
    kept = ("positive", "negative", "vae", "width", "height", "length")
    conditioning["class_type"] = "WanImageToVideo"
    conditioning["inputs"] = {key: conditioning["inputs"][key] for key in kept} | {"batch_size": 1}
    conditioning["inputs"]["start_image"] = [id_by_title(plain, "Reference"), 0]
    for title in ("Driving poses", "Skeleton"):
        del plain[id_by_title(plain, title)]
    return {PLAIN: plain} | made


def vae_graphs(width: int, height: int, frames: int, round_: int) -> dict[str, dict[str, dict[str, Any]]]:
    """The same without sampling: what goes in is encoded, and decoded as if it were the result. Each graph of each round has
    pictures of its own, as what was encoded before is not encoded again."""
    made = graphs(width, height, frames, 0)
    for number, (name, graph) in enumerate(made.items(), round_ * len(made)):
        by_title(graph, "Reference")["inputs"]["image"] = f"reference{number}.png"
        if name != PLAIN:
            by_title(graph, "Driving poses")["inputs"]["poses"] = f"poses{number}.json"
        conditioning = id_by_title(graph, "In-context conditioning")
        decode = {"samples": [conditioning, 2], "vae": graph[conditioning]["inputs"]["vae"]}
        graph["decode"] = {"class_type": "VAEDecode" if name == PLAIN else "DreamActorDecode", "inputs": decode}
        graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
    return made


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each context's steps to the plain ones of the same round: median, lowest, highest."""
    found = {}
    for name in CONTEXTS:
        values = [own / plain for own, plain in zip(seconds[name], seconds[PLAIN], strict=True)]
        found[name] = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: {key: round(value, 3) for key, value in row.items()} for name, row in found.items()}


def _write(folder: Path, seed: int, number: int) -> None:
    """A reference and a driver."""
    scene = sample_scene(rng_for("test", 0, seed, number), "human", frames=121, lead=None)
    write_image(folder / f"reference{number}.png", scene.draw()[0][0])
    poses = to_pose_keypoint(from_body_joints(scene.keypoints(), HEIGHT, WIDTH))
    (folder / f"poses{number}.json").write_text(json.dumps({"frames": poses, "frame_ms": 1000 / FPS}))


def _vae_row(client: Client) -> dict[str, Any]:
    """Whole runs of the graphs that do nothing but encode and decode, once before the clock runs: networks are loaded then."""
    width, height, frames = VAE_SIZE
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *CONTEXTS)}
    for graph in vae_graphs(width, height, 13, 0).values():
        client.run(graph)
    for round_ in range(ROUNDS):
        for name, graph in vae_graphs(width, height, frames, round_).items():
            started = time.perf_counter()
            client.run(graph)
            seconds[name].append(time.perf_counter() - started)
    row = {"what": "vae", "width": width, "height": height, "frames": frames, "ratios": ratios(seconds)}
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def measure(seed: int) -> list[dict[str, Any]]:
    """One dict for the VAE's work, then one a size: width, height, frames, tokens of the result, and every context's ratios."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_loras(Path(folder))
        paths = Path(folder) / "paths.yaml"
        paths.write_text(json.dumps({"bench": {"base_path": folder, "loras": "."}}))
        # what is made of reference and driver is kept from round to round: sampling is what is timed
        with HostServer(arguments=["--extra-model-paths-config", str(paths), "--cache-lru", "100"]) as server:
            client = Client(server.url)
            for number in range(ROUNDS * (1 + len(CONTEXTS))):
                _write(server.input_dir, seed, number)
            rows.append(_vae_row(client))
            for width, height, frames in SIZES:
                seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *CONTEXTS)}
                for round_ in range(ROUNDS):
                    for name, graph in graphs(width, height, frames, seed + round_).items():
                        clock = StepClock(id_by_title(graph, "Sampler"))
                        client.run(graph, clock)
                        seconds[name].append(clock.seconds())
                tokens = ((frames - 1) // 4 + 1) * (width // 16) * (height // 16)
                row = {"what": "step", "width": width, "height": height, "frames": frames, "tokens": tokens}
                row["ratios"] = ratios(seconds)
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file holds: `step_ratio` by context at the size of REAL (the last size, if that is not among them),
    `vae_ratio`, and the rows."""
    vae, *steps = rows
    chosen = next((row for row in steps if (row["width"], row["height"], row["frames"]) == REAL), steps[-1])
    medians = {key: {name: one["median"] for name, one in row["ratios"].items()} for key, row in (("step", chosen), ("vae", vae))}
    return {"step_ratio": medians["step"], "vae_ratio": medians["vae"], "rows": rows}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Ratios over the number of tokens."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    rows = sorted((row for row in rows if row["what"] == "step"), key=lambda row: row["tokens"])
    for name in CONTEXTS:
        axes.plot([row["tokens"] for row in rows], [row["ratios"][name]["median"] for row in rows], marker="o", label=name)
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
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}, expected 0 or more")
    rows = measure(args.seed)
    print(f"{'':6}{'size':10}{'frames':>7}" + "".join(f"{name:>18}" for name in CONTEXTS))
    for row in rows:
        size = f"{row['width']}x{row['height']}"
        print(f"{row['what']:6}{size:10}{row['frames']:7}"
              + "".join(f"{row['ratios'][name]['median']:18.2f}" for name in CONTEXTS))  # fmt: skip
    if args.json:
        with atomic(args.json) as partial:
            partial.write_text(json.dumps(summary(rows), indent=2) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
