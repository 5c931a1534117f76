"""How fast skeletons are drawn, against the drawing that users know.

    python run.py bench pose_draw --json pose_draw.json

One whole-body person a frame (18 + 70 + 2 x 21 joints) at 832x480. The other drawing is that of PyPI's controlnet-aux,
taken from the installed package and timed on the same keypoints in the same run; without the package its line is left
out. All on the CPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dreamactor_core.poses import FACE, HAND, Person, PoseSequence, from_body_joints
from dreamactor_core.skeleton import STYLES, draw_skeleton
from headless.atomic import atomic
from training.marionette.world import HEIGHT as PANEL_HEIGHT
from training.marionette.world import WIDTH as PANEL_WIDTH
from training.marionette.world import rng_for, sample_scene

HEIGHT, WIDTH, FRAMES, ROUNDS = 480, 832, 200, 7
PUBLISHED = "controlnet_aux.open_pose"


def whole_body_clip(frames: int, seed: int) -> PoseSequence:
    """Somebody of the drawn world with a ring of face points and two fans of fingers, in pixels of the canvas."""
    scene = sample_scene(rng_for("test", 0, seed), "human", frames=frames, lead=None)
    clip = from_body_joints(scene.keypoints(), PANEL_HEIGHT, PANEL_WIDTH).fitted(HEIGHT, WIDTH)
    turn = np.linspace(0, 2 * np.pi, FACE, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1) * np.where(np.arange(FACE) < 40, 1.0, 0.5)[:, None]
    finger, knuckle = np.divmod(np.arange(HAND - 1), 4)
    spread = np.pi * (0.1 + 0.2 * finger)
    fan = np.concatenate([[[0, 0]], np.stack([np.cos(spread), np.sin(spread)], 1) * (knuckle[:, None] + 1)])
    for (person,) in clip.frames:
        for name, joint, shape, size in (("face", 0, ring, 28), ("left_hand", 7, fan, 9), ("right_hand", 4, fan, 9)):
            points = person.body[joint, :2] + shape * size
            setattr(person, name, np.concatenate([points, np.ones((len(points), 1))], 1).astype(np.float32))
    return clip


def published_drawing(clip: PoseSequence) -> Callable[[], list[np.ndarray]] | None:
    """controlnet-aux's drawing of a clip of one person, or None with a message.

    Only its drawing is imported: the package itself would import every detector and what those need.
    """
    found = importlib.util.find_spec("controlnet_aux")
    if found is None or not found.submodule_search_locations:
        print("controlnet-aux is not installed (pip install controlnet-aux): its drawing is left out", file=sys.stderr)
        return None
    root = Path(found.submodule_search_locations[0])
    for name, folder in (("controlnet_aux", root), (PUBLISHED, root / "open_pose")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    try:
        util, body = (importlib.import_module(f"{PUBLISHED}.{name}") for name in ("util", "body"))
        importlib.import_module("matplotlib.colors")
    except ImportError as error:
        print(f"controlnet-aux's drawing cannot be imported ({error}): it is left out", file=sys.stderr)
        return None

    def points(person: Person) -> dict[str, list[Any]]:
        return {
            name: [body.Keypoint(x=float(x) / WIDTH, y=float(y) / HEIGHT) for x, y, _ in group]
            for name, group in person.groups().items()
        }

    people = [points(person) for (person,) in clip.frames]  # in its own form beforehand: only drawing is timed

    def draw(person: dict[str, list[Any]]) -> np.ndarray:
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        util.draw_bodypose(canvas, person["body"])
        util.draw_handpose(canvas, person["left_hand"])
        util.draw_handpose(canvas, person["right_hand"])
        return util.draw_facepose(canvas, person["face"])

    return lambda: [draw(person) for person in people]


def _row(rates: list[float]) -> dict[str, float]:
    return {"median": statistics.median(rates), "first": rates[0], "lowest": min(rates), "highest": max(rates)}


def measure(seed: int) -> dict[str, dict[str, float]]:
    """Frames a second over ROUNDS rounds, by drawing, and `ratio`, ours by the published. `first` is the round that meets
    memory not used before. The drawings take turns, so that what else the machine does hits all of them."""
    clip = whole_body_clip(FRAMES, seed)
    drawings: dict[str, Callable[[], object]] = {
        name: lambda name=name: draw_skeleton(clip, HEIGHT, WIDTH, style=name) for name in STYLES
    }
    published = published_drawing(clip)
    if published is not None:
        drawings["published"] = published
    rates: dict[str, list[float]] = {name: [] for name in drawings}
    for _ in range(ROUNDS):
        for name, draw in drawings.items():
            started = time.perf_counter()
            draw()
            rates[name].append(FRAMES / (time.perf_counter() - started))
    rows = {name: _row(each) for name, each in rates.items()}
    if published is not None:
        rows["ratio"] = _row([ours / theirs for ours, theirs in zip(rates["dwpose"], rates["published"], strict=True)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args()
    rows = measure(args.seed)
    for name, row in rows.items():
        unit = "x" if name == "ratio" else " frames/s"
        print(f"{name:16} {row['median']:7.1f}{unit} (first {row['first']:.1f}, {row['lowest']:.1f} to {row['highest']:.1f})")
    if args.json:
        with atomic(args.json) as partial:
            partial.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
