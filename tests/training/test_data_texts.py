"""Poses by the estimator, texts by keypoints or a service, through the whole verb: networks and services with known answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("training", "networks", "text")]
import data_videos as videos
from marker_networks import Drawn, dot_network, draw, person, rectangle_detector
from stand_ins import APPEARANCE, BAD_MOTION, FUSED, MOTION, StandIn, refusal, says, status

from dreamactor_core.extract.catalogue import MODELS
from dreamactor_core.extract.joints import JOINTS, from_coco_wholebody
from dreamactor_core.poses import from_pose_keypoint, read_pose_file
from training.data import build
from training.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that find rectangles and dots, under the names of the real ones."""
    folder, model = tmp_path_factory.mktemp("weights"), MODELS["dwpose"]
    rectangle_detector(folder / model.detector.name, 320)
    dot_network(folder / model.network.name, JOINTS[model.layout], model.input_size, (0.9, 0.9))
    return folder


def test_poses_are_those_of_the_cropped_picture(weights: Path, tmp_path: Path) -> None:
    """Two clips of one video, lossless: in the second half nobody is there."""
    one = person((160, 20, 380, 300), seed=1)
    frames = [draw(320, 640, [Drawn(one.box, one.dots, one.colour, one.radius)] if t < 9 else []) for t in range(18)]
    videos.write(tmp_path / "in" / "a.mkv", frames, 8, codec="ffv1")
    clip = {"frames": 9, "sizes": [[512, 320]]}
    config = videos.config(
        tmp_path / "out", clip, folder=tmp_path / "in", max_frames=9, poses="extract", pose_weights=weights, captions="describe"
    )
    (sample,) = build.build(config)
    found = from_pose_keypoint(read_pose_file(sample.poses)[0])
    assert (len(found), found.width, found.height) == (9, 512, 320)
    truth = from_coco_wholebody(np.concatenate([one.dots - (64, 0), np.full((133, 1), 0.9)], 1))  # 640 wide, cut to 512
    assert np.abs(found.frames[4][0].body[:, :2] - truth.body[:, :2]).max() <= 1
    assert sample.caption == sample.motion and sample.caption.startswith("In the video, the character's initial pose is")
    (dropped,) = map(json.loads, (tmp_path / "out" / "clips" / "dropped.jsonl").read_text("utf-8").splitlines())
    assert (dropped["reason"], dropped["start"], dropped["end"]) == ("nobody", 1.125, 2.25)


def test_networks_that_do_not_load_stop_it_at_once(weights: Path, tmp_path: Path) -> None:
    for path in weights.iterdir():
        (tmp_path / path.name).write_bytes(b"no network")
    videos.write(tmp_path / "in" / "a.mp4", videos.moving(30), 24)
    with pytest.raises(UserError, match=r"data.poses is extract: .* cannot be loaded as an ONNX network"):
        build.build(videos.config(tmp_path / "out", folder=tmp_path / "in", poses="extract", pose_weights=tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DREAMACTOR_API_KEY", "sk-test-0123456789abcdefSECRET")
    monkeypatch.setenv("DREAMACTOR_API_HOST", "127.0.0.1")
    with StandIn("openai_compatible") as running:
        yield running


def asked(tmp_path: Path, service: StandIn) -> dict[str, object]:
    texts = {"captions": "service", "service": "openai_compatible", "model": "m", "base_url": service.url}
    return {"folder": tmp_path / "in", **texts}


def test_a_service_tells_motion_and_appearance_and_fuses_them(service: StandIn, tmp_path: Path) -> None:
    videos.write(tmp_path / "in" / "a.mp4", videos.moving(27), 24)
    (sample,) = build.build(videos.config(tmp_path / "out", **asked(tmp_path, service)))
    assert (sample.caption, sample.motion, sample.appearance) == (FUSED, MOTION, APPEARANCE)
    # of 9 frames at 8 fps the first 2 are lead-in: 7 that drive, at 4 a second; and the first frame for the looks
    assert [request.pictures for request in service.requests] == [4, 1, 0]
    # the answers are kept: a clip that is made again asks nothing
    sample.target_video.unlink()
    assert build.build(videos.config(tmp_path / "out", **asked(tmp_path, service))) == [sample]
    assert len(service.requests) == 3


def test_refusals_cost_the_clip_and_a_service_that_is_gone_stops_the_run(service: StandIn, tmp_path: Path) -> None:
    for number in range(4):
        videos.write(tmp_path / "in" / f"{number}.mp4", videos.moving(27, shot=number), 24)
    config = videos.config(tmp_path / "out", **asked(tmp_path, service))
    # the first clip is described, the second refused, the third badly told twice; at the fourth the key is not taken
    service.script = [says(MOTION), says(APPEARANCE), says(FUSED), refusal, says(BAD_MOTION), says(BAD_MOTION), status(401)]
    with pytest.raises(UserError, match="give the same command again when it is there") as error:
        build.build(config)
    assert "SECRET" not in str(error.value)
    assert not (tmp_path / "out" / "clips" / "manifest.jsonl").exists()
    before = len(service.requests)
    samples = build.build(config)
    assert [sample.id[0] for sample in samples] == ["0", "3"] and len(service.requests) == before + 2  # the texts are fused already
    lines = (tmp_path / "out" / "clips" / "dropped.jsonl").read_text("utf-8").splitlines()
    assert [(one["source"], one["reason"]) for one in map(json.loads, lines)] == [("1.mp4", "bad_text"), ("2.mp4", "bad_text")]
    assert "SECRET" not in "".join(path.read_text("utf-8") for path in (tmp_path / "out").rglob("*.json*"))
