"""The measure `motion` with an estimator at work: real onnxruntime, networks that find drawn dots."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "networks")]
from marker_networks import Drawn, dot_network, draw, person, rectangle_detector  # noqa: E402
from synthetic_pairs import write_config  # noqa: E402

from dreamactor_core.extract.catalogue import MODELS  # noqa: E402
from dreamactor_core.extract.joints import JOINTS  # noqa: E402
from dreamactor_core.poses import to_pose_keypoint  # noqa: E402
from training import config, manifest  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.manifest import Sample  # noqa: E402
from training.score.estimator import load_estimator  # noqa: E402
from training.video import write_clip  # noqa: E402

HEIGHT, WIDTH, COUNT = 320, 360, 5


def clip(moves: list[int]) -> np.ndarray:
    """Somebody who goes to the right by so many pixels a frame; nobody where it is negative."""
    one = person((10, 20, 230, 300), colour=1, seed=1)
    frames = []
    for x in moves:
        x0, y0, x1, y1 = one.box
        there = [Drawn((x0 + x, y0, x1 + x, y1), one.dots + (x, 0), one.colour, one.radius)] if x >= 0 else []
        frames.append(draw(HEIGHT, WIDTH, there))
    return np.stack(frames)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("networks"), MODELS["dwpose"]
    rectangle_detector(folder / model.detector.name, 320, packed=True)
    dot_network(folder / model.network.name, JOINTS[model.layout], (256, 192), (9.0, 9.0))
    return folder


def test_the_motion_of_poses_that_are_estimated_anew(tmp_path: Path, networks: Path) -> None:
    path = write_config(tmp_path, score={"measures": ["motion"], "workers": 2}, data={"pose_weights": str(networks)})
    extract = load_estimator(config.load(path))
    folder, samples = tmp_path / "run" / "synthetic", []
    source = clip([25 * t for t in range(COUNT)])
    write_clip(folder / "target.mkv", source, 24)
    poses = {"frames": to_pose_keypoint(extract(source)), "frame_ms": 1000 / 24}
    (folder / "poses.json").write_text(json.dumps(poses), "utf-8")
    for name, moves in (("right", [25 * t for t in range(COUNT)]), ("still", [0] * COUNT), ("nobody", [-1] * COUNT)):
        write_clip(folder / f"{name}.mkv", clip(moves), 24)
        samples.append(
            Sample(
                id=name, kind="e2e", target_video=folder / "target.mkv", driving_video=folder / f"{name}.mkv",
                poses=folder / "poses.json", fps=24, frames=COUNT, width=WIDTH, height=HEIGHT,
            )
        )  # fmt: skip
    manifest.write(folder / "manifest.jsonl", samples)
    assert main(["score", str(path)]) == 0
    scores = {one.id: one.scores["motion"] for one in manifest.read(tmp_path / "run" / "scores" / "manifest.jsonl")}
    assert scores["right"] == 1 and scores["nobody"] == 0
    assert scores["right"] > scores["still"] > 0  # its bones are right, its way is not
