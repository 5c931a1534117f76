"""The demo's inputs: what is planned for them, and what is refused before a server starts."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headless import demo
from headless.jobs import InputError, Job, as_video, check, draw_poses, plan, read_poses
from headless.media import read_video, write_image, write_mp4

ROOT = Path(__file__).resolve().parents[2]


def person(x: float) -> dict[str, Any]:
    """One POSE_KEYPOINT frame of a stick figure about x."""
    body = [value for k in range(18) for value in (x, 20 + 3 * k, 1.0)]
    return {"people": [{"pose_keypoints_2d": body}], "canvas_width": 100, "canvas_height": 100}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A pose job whose files are all right."""
    nodes = {"1": "Reference", "2": "Driving poses", "3": "Result"}
    workflow = {key: {"class_type": "X", "inputs": {}, "_meta": {"title": title}} for key, title in nodes.items()}
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    (tmp_path / "drive.json").write_text(json.dumps({"frames": [person(50)], "frame_ms": 40}))
    write_image(tmp_path / "character.png", np.zeros((8, 8, 3), np.uint8))
    return Job("pose", tmp_path / "workflow.json", tmp_path / "character.png", tmp_path / "drive.json")


def changed(job: Job, **paths: Any) -> Job:
    return Job(**{**job.__dict__, **paths})


def test_without_arguments_both_bundled_jobs_run(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "drive_video_truth.mp4").touch()
    pose, rgb = plan(None, None, tmp_path)
    assert (pose.variant, pose.drive.name, pose.truth) == ("pose", "drive_person.json", None)
    assert (rgb.variant, rgb.drive.name) == ("rgb", "drive_video.mp4")
    assert rgb.truth == tmp_path / "assets" / "drive_video_truth.mp4"


@pytest.mark.parametrize(
    ("name", "variant"),
    [("a.json", "pose"), ("A.JSON", "pose"), ("a.mp4", "rgb"), ("a.webm", "rgb"), ("a.mov", "rgb"), ("a.GIF", "rgb")],
)
def test_the_drivers_kind_chooses_the_workflow(name: str, variant: str) -> None:
    (job,) = plan(None, Path(name), ROOT)
    assert job.variant == variant
    assert job.workflow.name == {"pose": "marionette_pose_retarget.json", "rgb": "marionette_rgb.json"}[variant]


def test_keypoints_are_retargeted_onto_a_reference_whose_pose_lies_beside_it(tmp_path: Path) -> None:
    drive, character = Path("a.json"), tmp_path / "me.png"
    (job,) = plan(character, drive, ROOT)
    assert (job.workflow.name, job.reference_poses) == ("marionette_pose.json", None)
    (tmp_path / "me_poses.json").touch()
    (job,) = plan(character, drive, ROOT)
    assert (job.workflow.name, job.reference_poses) == ("marionette_pose_retarget.json", tmp_path / "me_poses.json")
    pose, rgb = plan(None, None, ROOT)
    assert pose.reference_poses == ROOT / "assets" / "reference_human_poses.json" and rgb.reference_poses is None


def test_the_pose_of_a_reference_is_checked_too(job: Job, tmp_path: Path) -> None:
    (tmp_path / "poses.json").write_text(json.dumps([{"people": [], "canvas_width": 8, "canvas_height": 8}]))
    with pytest.raises(InputError, match="0 nodes are titled 'Reference poses'"):
        check(changed(job, reference_poses=tmp_path / "poses.json"))
    nodes = json.loads(job.workflow.read_text())
    nodes["4"] = {"class_type": "X", "inputs": {}, "_meta": {"title": "Reference poses"}}
    job.workflow.write_text(json.dumps(nodes))
    with pytest.raises(InputError, match=r"poses\.json: there is nobody in any of its 1 frames"):
        check(changed(job, reference_poses=tmp_path / "poses.json"))


def test_another_reference_has_no_known_truth() -> None:
    jobs = plan(Path("me.png"), None, ROOT)
    assert [(job.reference.name, job.truth) for job in jobs] == [("me.png", None)] * 2


def test_a_job_that_is_all_right_passes(job: Job) -> None:
    check(job)


@pytest.mark.parametrize("name", ["clip.avi", "clip", "clip.txt"])
def test_an_unknown_suffix_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"got {name}, expected keypoints \(\.json\) or a video \(\.mp4"):
        plan(None, Path(name), ROOT)


@pytest.mark.parametrize("field", ["workflow", "reference", "drive"])
def test_a_missing_file_is_named(job: Job, field: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{field}: .*nowhere.* does not exist"):
        check(changed(job, **{field: tmp_path / "nowhere"}))
    with pytest.raises(InputError, match=rf"{field}: .* is a folder"):
        check(changed(job, **{field: tmp_path}))


BAD_POSES = {
    "no JSON": (b"{", "cannot be read as JSON"),
    "no text": (b"\xff\xfe\x00\x01", "cannot be read as JSON"),
    "no frames": (b"[]", "zero frames"),
    "no list": (b"7", "expected a list"),
    "wrong joint count": (
        json.dumps([{"people": [{"pose_keypoints_2d": [1, 2, 1]}], "canvas_width": 9, "canvas_height": 9}]).encode(),
        "frame 0, person 0, pose_keypoints_2d: got 3 numbers, expected 54",
    ),
    "nobody": (json.dumps([{"people": [], "canvas_width": 9, "canvas_height": 9}]).encode(), "nobody in any of its 1"),
    "frame_ms zero": (
        json.dumps({"frames": [person(5)], "frame_ms": 0}).encode(),
        "frame_ms is 0, expected a positive",
    ),
    "frame_ms text": (json.dumps({"frames": [person(5)], "frame_ms": "40"}).encode(), "frame_ms is '40'"),
}


@pytest.mark.parametrize("case", BAD_POSES)
def test_bad_poses_are_refused(job: Job, case: str) -> None:
    content, message = BAD_POSES[case]
    job.drive.write_bytes(content)
    with pytest.raises(InputError, match=message):
        check(job)


def test_bad_pictures_and_videos_are_refused(job: Job, tmp_path: Path) -> None:
    for name in ("bad.png", "bad.mp4", "bad.gif"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"bad\.png cannot be read as a picture.*expected PNG, JPEG or WebP"):
        check(changed(job, reference=tmp_path / "bad.png"))
    nodes = json.loads(job.workflow.read_text())
    nodes["2"]["_meta"]["title"] = "Driving video"
    job.workflow.write_text(json.dumps(nodes))
    with pytest.raises(InputError, match=r"bad\.mp4 cannot be read as a video"):
        check(changed(job, variant="rgb", drive=tmp_path / "bad.mp4"))
    with pytest.raises(InputError, match=r"bad\.gif cannot be read as an animation"):
        as_video(changed(job, variant="rgb", drive=tmp_path / "bad.gif"), tmp_path)


def test_a_workflow_without_its_titles_is_refused(job: Job) -> None:
    with pytest.raises(InputError, match="0 nodes are titled 'Driving video', expected one"):
        check(changed(job, variant="rgb"))
    job.workflow.write_text('{"nodes": []}')
    with pytest.raises(InputError, match="not a workflow in API format"):
        check(job)


def test_a_still_picture_is_no_driver(job: Job, tmp_path: Path) -> None:
    write_image(tmp_path / "still.png", np.zeros((8, 8, 3), np.uint8))
    still = (tmp_path / "still.png").rename(tmp_path / "still.webp")
    with pytest.raises(InputError, match="is a still picture"):
        as_video(changed(job, variant="rgb", drive=still), tmp_path / "made")


def test_a_video_goes_as_it_is(job: Job, tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", np.zeros((3, 16, 16, 3), np.uint8), 10)
    video = changed(job, variant="rgb", drive=tmp_path / "a.mp4")
    assert as_video(video, tmp_path) is video


def test_poses_say_their_rate_or_not(job: Job) -> None:
    assert read_poses(job.drive)[1] == 25
    job.drive.write_text(json.dumps([person(50)]))
    assert read_poses(job.drive)[1] is None


def test_skeletons_are_drawn_at_the_results_moments(tmp_path: Path) -> None:
    # a figure that walks from left to right in one second, 20 frames of 50 ms, seen at 4 fps
    (tmp_path / "walk.json").write_text(json.dumps({"frames": [person(5 * k) for k in range(20)], "frame_ms": 50}))
    drawn = draw_poses(tmp_path / "walk.json", [t / 4 for t in range(6)], 100, 100)
    middles = [np.nonzero(frame.any(-1).any(0))[0].mean() for frame in drawn]
    assert middles[1:] == pytest.approx([25, 50, 75, 95, 95], abs=2)  # past the end the last frame stays


def test_skeletons_fill_the_cell_as_the_workflow_has_it(tmp_path: Path) -> None:
    (tmp_path / "stand.json").write_text(json.dumps({"frames": [person(50)], "frame_ms": 50}))
    heights = {}
    for fit in ("canvas", "crop"):
        (drawn,) = draw_poses(tmp_path / "stand.json", [0.0], 100, 200, {"fit": fit})
        rows, columns = np.nonzero(drawn.any(-1))
        heights[fit] = np.ptp(rows)
        assert columns.mean() == pytest.approx(100, abs=3), "in the middle"
    assert heights["crop"] > 1.5 * heights["canvas"]


def test_the_command_refuses_without_starting_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert demo.main(["--drive", str(tmp_path / "no.mp4"), "--out", str(out)]) == 1
    assert "error: " in (message := capsys.readouterr().err)
    assert "does not exist, expected a file" in message
    assert not out.exists()


def test_the_log_of_an_earlier_run_is_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "comfyui.log").write_text("an earlier run failed")
    assert demo.main(["--drive", str(tmp_path / "no.mp4"), "--out", str(tmp_path)]) == 1
    assert "comfyui.log" not in capsys.readouterr().err
    assert not (tmp_path / "comfyui.log").exists()


def test_out_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # a test that runs as root meets none

    out = tmp_path / "out"
    monkeypatch.setattr(demo, "find_host", lambda: tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused)
        assert demo.main(["--out", str(out)]) == 1
    assert f"--out: {out} cannot be written to (Permission denied)" in capsys.readouterr().err
    out.mkdir()
    monkeypatch.setattr(Path, "touch", refused)
    assert demo.main(["--out", str(out)]) == 1
    assert f"--out: {out} cannot be written to (Permission denied)" in capsys.readouterr().err


def test_out_must_not_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert demo.main(["--out", str(tmp_path / "out")]) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_an_animation_keeps_its_timing(job: Job, tmp_path: Path) -> None:
    from PIL import Image

    shades = [Image.new("RGB", (16, 16), (v, v, v)) for v in (0, 100, 200)]
    shades[0].save(tmp_path / "a.gif", save_all=True, append_images=shades[1:], duration=[100, 300, 200], loop=0)
    made = as_video(changed(job, variant="rgb", drive=tmp_path / "a.gif"), tmp_path / "made")
    video = read_video(made.drive)
    assert video.fps == 10
    assert [round(float(frame.mean()) / 100) for frame in video.frames] == [0, 1, 1, 1, 2, 2]
