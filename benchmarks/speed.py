"""What a sampling step of the method costs, against a plain image-to-video step that gives as many frames of that size.

    python run.py bench speed --json speed.json

Both run in a real server on the small backbone, in turn, and only their ratio is reported. The composite is twice as wide
and has the lead-in besides, which is cut from the result: for 25 frames, 33 are sampled, which are 9 latent frames for 7. So
there are 2 * 9 / 7 = 2.6 times the tokens, and the ratio is that where the network's matrices rule, and goes to its square,
6.6, where attention does. In longer clips the lead-in weighs less, down to 2 and 4.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from headless.atomic import atomic
from headless.client import Client, Progress, by_title, id_by_title
from headless.media import write_image
from headless.server import HostServer
from training.marionette.world import FPS, HEIGHT, LEAD_IN, WIDTH, rng_for, sample_scene

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((64, 96, 25), (96, 144, 25), (128, 192, 25))
"""Width, height and frames of the result, 4n+1. The joint graph samples LEAD_IN frames more."""
STEPS, ROUNDS = 9, 3


class StepClock:
    """Seconds of a step of the sampler node, from its progress messages."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.seen: list[tuple[float, float]] = []  # steps done, and when

    def __call__(self, progress: Progress) -> None:
        if progress.node_id == self.node_id and progress.value:
            self.seen.append((progress.value, time.perf_counter()))

    def seconds(self) -> float:
        """Mean over all steps but the first, which loads the model. The host leaves messages out when they come fast, but
        never the first and the last."""
        (first, began), (last, ended) = self.seen[0], self.seen[-1]
        return (ended - began) / (last - first)


def _graphs(width: int, height: int, frames: int, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """The workflow with the method and the one without, whose results both have `frames` frames."""
    joint = json.loads((ROOT / "workflows/api/marionette_pose.json").read_text("utf-8"))
    by_title(joint, "Reference")["inputs"]["image"] = "reference.png"
    by_title(joint, "Driving poses")["inputs"]["poses"] = "poses.json"
    by_title(joint, "Skeleton")["inputs"] |= {"width": width, "height": height}
    by_title(joint, "In-context conditioning")["inputs"] |= {"width": width, "height": height, "length": frames + LEAD_IN}
    by_title(joint, "Sampler")["inputs"] |= {"steps": STEPS, "seed": seed}
    for title in ("Result", "Composite preview"):
        del joint[id_by_title(joint, title)]
    decode = id_by_title(joint, "Decode")
    joint["save"] = {"class_type": "PreviewImage", "inputs": {"images": [decode, 0]}}
    plain = copy.deepcopy(joint)
    conditioning = by_title(plain, "In-context conditioning")
    kept = ("positive", "negative", "vae", "width", "height")
    conditioning["class_type"] = "WanImageToVideo"
    conditioning["inputs"] = {key: conditioning["inputs"][key] for key in kept} | {"length": frames, "batch_size": 1}
    conditioning["inputs"]["start_image"] = [id_by_title(plain, "Reference"), 0]
    plain[decode]["class_type"] = "VAEDecode"
    for title in ("Driving poses", "Skeleton"):
        del plain[id_by_title(plain, title)]
    return {"joint": joint, "plain": plain}


def measure(seed: int) -> list[dict[str, Any]]:
    """One dict a size: width, height, frames, and the step ratio over rounds (median, lowest, highest)."""
    rows = []
    with HostServer() as server:
        client = Client(server.url)
        scene = sample_scene(rng_for("test", 0, seed), "human", frames=121, lead=None)
        write_image(server.input_dir / "reference.png", scene.draw()[0][0])
        poses = to_pose_keypoint(from_body_joints(scene.keypoints(), HEIGHT, WIDTH))
        (server.input_dir / "poses.json").write_text(json.dumps({"frames": poses, "frame_ms": 1000 / FPS}))
        for width, height, frames in SIZES:
            ratios = []
            for round_ in range(ROUNDS):
                steps = {}
                for name, graph in _graphs(width, height, frames, seed + round_).items():
                    clock = StepClock(id_by_title(graph, "Sampler"))
                    client.run(graph, clock)
                    steps[name] = clock.seconds()
                ratios.append(steps["joint"] / steps["plain"])
            row = {"width": width, "height": height, "frames": frames, "step_ratio": {"joint": round(statistics.median(ratios), 3)},
                   "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}  # fmt: skip
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}, expected 0 or more")
    rows = measure(args.seed)
    print(f"{'size':14}{'frames':>8}{'joint / plain':>16}{'range':>18}")
    for row in rows:
        size, spread = f"{row['width']}x{row['height']}", f"{row['lowest']:.2f} to {row['highest']:.2f}"
        print(f"{size:14}{row['frames']:8}{row['step_ratio']['joint']:16.2f}{spread:>18}")
    if args.json:
        with atomic(args.json) as partial:
            partial.write_text(json.dumps({"step_ratio": rows[-1]["step_ratio"], "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
