"""The demo's way through a real ComfyUI, with workflows that need no model: what comes out is what went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headless.client import Client
from headless.demo import Done, perform, write_results
from headless.jobs import Job, check
from headless.media import read_image, read_video, write_image, write_mp4

HEIGHT, WIDTH, COUNT, FPS = 48, 32, 9, 12.0


def moving_square() -> np.ndarray:
    frames = np.full((COUNT, HEIGHT, WIDTH, 3), 40, np.uint8)
    for t in range(COUNT):
        frames[t, 8:24, 2 * t : 2 * t + 12] = (220, 60, 60)
    return frames


@pytest.fixture(scope="module")
def done(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The result of a workflow that hands the driver through."""
    folder = tmp_path_factory.mktemp("demo")
    frames = moving_square()
    write_image(folder / "character.png", frames[0])
    write_mp4(folder / "drive.mp4", frames, FPS, crf=1)
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x"}, "_meta": {"title": "Reference"}},
        "2": {"class_type": "LoadVideo", "inputs": {"file": "x"}, "_meta": {"title": "Driving video"}},
        "3": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["2", 0], "filename_prefix": "demo", "format": "auto", "codec": "auto"},
            "_meta": {"title": "Result"},
        },
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    (folder / "workflow.json").write_text(json.dumps(workflow))
    drive = folder / "drive.mp4"
    job = Job("rgb", folder / "workflow.json", folder / "character.png", drive, truth=drive)
    check(job)
    return perform(job, client, folder / "made")


def test_the_result_is_what_the_workflow_saved(done: Done) -> None:
    label, result = done.block.rows[1]
    assert label == "result"
    assert done.fps == FPS
    assert np.abs(np.stack(result).astype(int) - moving_square()).mean() < 3


def test_figures_tell_the_result_from_the_still_reference(done: Done) -> None:
    assert done.figures is not None
    assert done.figures["frames"] == COUNT
    assert done.figures["psnr"] > 40 > 20 > done.figures["psnr_still"]
    assert 0.05 < done.figures["moving_fraction"] < 0.5


def test_the_demo_writes_film_sheet_and_figures(done: Done, tmp_path: Path) -> None:
    written = write_results([done, done], tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    film = read_video(tmp_path / "demo.mp4")
    assert film.fps == FPS
    assert len(film.frames) == 2 * 2 * COUNT  # two jobs, each shown twice
    sheet = read_image(tmp_path / "demo.png")
    assert (np.abs(sheet.astype(int) - (220, 60, 60)).max(-1) < 12).sum() > 10_000, "the square is nowhere in the sheet"
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert [job["frames"] for job in figures["jobs"]] == [COUNT, COUNT]
    assert set(figures["jobs"][0]) == {"job", *figures["keys"]}


def test_figures_of_an_earlier_run_do_not_stay(done: Done, tmp_path: Path) -> None:
    write_results([done], tmp_path)
    write_results([Done(done.block, done.fps, None)], tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def pose_workflow(fit: str) -> dict[str, dict[str, Any]]:
    """Draws the poses and saves the drawing as the result."""
    size = {"width": WIDTH, "height": HEIGHT, "fit": fit, "face": True, "hands": True, "threshold": 0.3}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x"}, "_meta": {"title": "Reference"}},
        "2": {"class_type": "DreamActorLoadPoses", "inputs": {"poses": "x"}, "_meta": {"title": "Driving poses"}},
        "3": {"class_type": "DreamActorPoseDraw", "inputs": {"pose_keypoint": ["2", 0], **size}},
        "4": {"class_type": "CreateVideo", "inputs": {"images": ["3", 0], "fps": ["2", 1]}},
        "5": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["4", 0], "filename_prefix": "demo", "format": "auto", "codec": "auto"},
            "_meta": {"title": "Result"},
        },
    }


@pytest.mark.parametrize("fit", ["canvas", "people"])
@pytest.mark.parametrize("says_its_rate", [True, False])
def test_poses_drive_and_are_shown(client: Client, tmp_path: Path, fit: str, says_its_rate: bool) -> None:
    def frame(t: int) -> dict[str, Any]:
        body = [value for k in range(18) for value in (4.0 + 3 * t, 10.0 + 1.5 * k, 1.0)]
        return {"people": [{"pose_keypoints_2d": body}], "canvas_width": WIDTH, "canvas_height": HEIGHT}

    poses = [frame(t) for t in range(COUNT)]
    (tmp_path / "poses.json").write_text(json.dumps({"frames": poses, "frame_ms": 50} if says_its_rate else poses))
    (tmp_path / "workflow.json").write_text(json.dumps(pose_workflow(fit)))
    write_image(tmp_path / "character.png", moving_square()[0])
    job = Job("pose", tmp_path / "workflow.json", tmp_path / "character.png", tmp_path / "poses.json")
    check(job)
    done = perform(job, client, tmp_path / "made")
    assert done.fps == (20 if says_its_rate else 24)
    (_, driving), (_, result) = done.block.rows
    assert len(driving) == len(result) == COUNT
    for driver, drawn in zip(driving, result, strict=True):
        where = [np.nonzero(picture.max(-1).max(0) > 60)[0].mean() / picture.shape[1] for picture in (driver, drawn)]
        assert where[0] == pytest.approx(where[1], abs=0.08), "driver and result do not show the same moment"


def test_a_driver_is_retargeted_onto_the_reference_whose_pose_is_known(client: Client, tmp_path: Path) -> None:
    """A tall driver and a small reference: what is drawn stands where the reference stands, as high as it is."""

    def figure(left: float, top: float, height: float) -> dict[str, Any]:
        levels = {0: 0.1, 1: 0.2, 8: 0.55, 9: 0.75, 10: 1.0, 11: 0.55, 12: 0.75, 13: 1.0, 2: 0.2, 5: 0.2}
        body = []
        for joint in range(18):
            across = (0.04 if joint > 10 or joint == 5 else -0.04) * height * (joint > 1)
            known = joint in levels
            body += [left + across, top + levels[joint] * height, 1.0] if known else [0.0, 0.0, 0.0]
        return {"people": [{"pose_keypoints_2d": body}], "canvas_width": WIDTH, "canvas_height": HEIGHT}

    workflow = pose_workflow("crop")
    workflow["6"] = {"class_type": "DreamActorLoadPoses", "inputs": {"poses": "x"}, "_meta": {"title": "Reference poses"}}
    links = {"pose_keypoint": ["2", 0], "reference_pose": ["6", 0], "travel_frames": 0}
    workflow["7"] = {"class_type": "DreamActorPoseRetarget", "inputs": links}
    workflow["3"]["inputs"]["pose_keypoint"] = ["7", 0]
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    drive = {"frames": [figure(10, 2, 44)] * COUNT, "frame_ms": 50}
    (tmp_path / "poses.json").write_text(json.dumps(drive))
    (tmp_path / "character_poses.json").write_text(json.dumps([figure(24, 22, 24)]))
    write_image(tmp_path / "character.png", moving_square()[0])
    paths = (tmp_path / name for name in ("workflow.json", "character.png", "poses.json"))
    job = Job("pose", *paths, reference_poses=tmp_path / "character_poses.json")
    check(job)
    (_, driving), (_, result) = perform(job, client, tmp_path / "made").block.rows
    rows, columns = np.nonzero(result[4].max(-1) > 60)
    assert columns.mean() == pytest.approx(24, abs=1.5) and rows.max() == pytest.approx(46, abs=2)
    assert np.ptp(rows) < 26
    drawn = np.nonzero(driving[4].max(-1) > 60)[0]
    assert np.ptp(drawn) > 0.6 * driving[4].shape[0], "the sheet shows the driver's own skeleton, as large as the frame"
