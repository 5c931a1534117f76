"""A folder of videos, good and bad ones, to clips: the real verb, end to end."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos

from dreamactor_core.poses import from_pose_keypoint, read_pose_file
from training import __main__ as command
from training import manifest
from training.config import Config
from training.data import build
from training.data.dropping import REASONS
from training.errors import UserError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "training" / "data.md"


def beside(video: Path, frames: int, width: int = 64, height: int = 96, seen: int | None = None, rate: float | None = None) -> None:
    """A caption, and poses of somebody who walks through the picture; in the first `seen` frames only."""
    video.with_suffix(".txt").write_text(f"somebody walks,\nin {video.stem}\n", "utf-8")
    poses = [videos.body(width, height, 20 + t, 1 if seen is None or t < seen else 0) for t in range(frames)]
    said = {"frames": poses} | ({"frame_ms": 1000 / rate} if rate else {})
    video.with_suffix(".json").write_text(json.dumps(said), "utf-8")


def dropped(config: Config) -> dict[str, dict[str, Any]]:
    """By source and reason."""
    lines = (config.out / "clips" / "dropped.jsonl").read_text("utf-8").splitlines()
    return {f"{one['source']} {one['reason']}": one for one in map(json.loads, lines)}


def test_clips_are_exactly_of_their_size_rate_and_length(tmp_path: Path) -> None:
    """A video of two shots at 24 fps, and one of a variable rate whose stated rate is a lie, to 8 fps."""
    source, out = tmp_path / "in", tmp_path / "out"
    two = [*videos.moving(3 * 24, shot=1), *videos.moving(48, shot=2)]
    beside(videos.write(source / "a" / "two shots.mp4", two, 24), len(two))
    steps = np.random.default_rng(1).choice([0.04, 0.08, 0.12], 31)
    times = np.cumsum([0, *steps]).round(3)
    lie = videos.write(source / "lie.mkv", videos.moving(32), times=times, codec="ffv1", stated=50)
    beside(lie, 32)
    config = videos.config(out, folder=source, shots=True, poses="file", captions="file")
    samples = build.build(config)
    assert manifest.read(out / "clips" / "manifest.jsonl") == samples
    # 72 frames at 24 fps are 24 at 8 fps: a clip of 17 and 7 that are left; 48 are 16: a clip of 9 and 7 that are left
    assert [sample.frames for sample in samples] == [17, 9, 17]
    assert all(len(sample.id) > 12 and sample.kind == "pose" for sample in samples)
    for sample in samples:
        stamps, frames = videos.read(sample.target_video)
        assert frames.shape == (sample.frames, 32, 48, 3) and (sample.width, sample.height, sample.fps) == (48, 32, 8)
        np.testing.assert_allclose(np.diff(stamps), 1 / 8, atol=1e-3)
        found, rate = read_pose_file(sample.poses)
        poses = from_pose_keypoint(found)
        assert (len(poses), poses.width, poses.height, rate) == (sample.frames, 48, 32, 8)
    first = videos.read(samples[0].target_video)[1]
    second = videos.read(samples[1].target_video)[1]
    assert np.abs(first[-1].astype(int) - first[0]).mean() < np.abs(second[0].astype(int) - first[-1]).mean(), "a clip over a cut"
    assert samples[0].caption == "somebody walks, in two shots"
    # every third frame of 24 fps: the walker goes 3 pixels of the source, which is enlarged 0.75 times
    walk = [people[0].body[0, 0] for people in from_pose_keypoint(read_pose_file(samples[0].poses)[0]).frames]
    np.testing.assert_allclose(np.diff(walk), 3 * 0.75, atol=1e-2)
    # of the lie, the frame that is on at each eighth of a second
    shown = np.searchsorted(times, np.arange(17) / 8 + 1e-3, side="right") - 1
    walk = [people[0].body[0, 0] for people in from_pose_keypoint(read_pose_file(samples[2].poses)[0]).frames]
    np.testing.assert_allclose(np.diff(walk), np.diff(shown) * 0.75, atol=1e-2)
    assert "states 50 fps" in samples[2].note and not samples[0].note
    # and every second of the sources is in a clip or in the list
    listed = dropped(config)
    rest = listed["a/two shots.mp4 too_short"]
    assert (rest["start"], rest["end"]) == (4.125, 5.0)
    assert sum(one["source"] == "a/two shots.mp4" for one in map(json.loads, (out / "clips/dropped.jsonl").open())) == 2


def test_every_bad_file_is_listed_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "in"
    good = videos.write(source / "good.mp4", videos.moving(27), 24, crf="4")
    beside(good, 27)
    shutil.copy(good, source / "good again.mp4")
    beside(source / "good again.mp4", 27)
    made = {
        "empty": ("empty.mp4", lambda path: path.write_bytes(b"")),
        "unreadable": ("letter.mp4", lambda path: path.write_text("not a video " * 99)),
        "damaged": ("flipped.mp4", lambda path: videos.flip_bits(good, path)),
        "too_short": ("short.mp4", lambda path: videos.write(path, videos.moving(20), 24)),
        "too_small": ("small.mp4", lambda path: videos.write(path, videos.moving(27, 32, 24), 24)),
        "slow": ("slow.mp4", lambda path: videos.write(path, videos.moving(9), 3)),
        "nobody": ("nobody.mp4", lambda path: videos.write(path, videos.moving(27, shot=4), 24)),
        "bad_poses": ("other poses.mp4", lambda path: videos.write(path, videos.moving(27, shot=5), 24)),
        "no_poses": ("no poses.mp4", lambda path: videos.write(path, videos.moving(27, shot=6), 24)),
        "no_caption": ("silent.mp4", lambda path: videos.write(path, videos.moving(27, shot=7), 24)),
    }
    for name, make in made.values():
        make(source / name)
        beside(source / name, 20 if name == "short.mp4" else 27)
    beside(source / "nobody.mp4", 27, seen=12)
    beside(source / "other poses.mp4", 40, rate=24)
    (source / "no poses.json").unlink()
    (source / "silent.txt").write_text(" \n", "utf-8")
    (source / "readme.pdf").write_bytes(b"%PDF")
    (source / ".hidden.mp4").write_bytes(b"")
    config = videos.config(tmp_path / "out", folder=source, poses="file", captions="file")
    samples = build.build(config)
    assert [sample.note for sample in samples] == [""] and samples[0].source_sha256[:12] in samples[0].id
    listed = dropped(config)
    expected = {f"{name} {reason}" for reason, (name, _) in made.items()}
    assert listed.keys() == expected | {"good.mp4 duplicate", "readme.pdf not_a_video"}
    assert listed["small.mp4 too_small"]["detail"].startswith("its pictures are 24x32, for 48x32 they would be enlarged 2.00 times")
    assert listed["nobody.mp4 nobody"]["start"] == 0
    left = {path.name for path in (tmp_path / "out" / "clips").iterdir()}
    assert {path.name for path in (samples[0].target_video, samples[0].poses)} < left and len(left - {".lock"}) == 6, left


def test_every_reason_is_explained_to_users() -> None:
    told = {line.split("`")[1] for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| `")}
    assert told == REASONS.keys()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"folder": None}, "data.folder is not given"),
        ({"folder": "nowhere"}, "data.folder is nowhere, expected a folder of videos"),
        ({"captions": "file"}, r"captions is file, and no video in .* has one \(such as a.txt\); set data.captions to describe"),
        ({"poses": "file"}, r"poses is file, and no video in .* has one \(such as a.json\)"),
        ({"poses": "extract"}, "data.pose_weights is not given; expected the folder that holds\n  yolox_l.onnx"),
        ({"poses": "extract", "pose_weights": "nowhere"}, "which lacks yolox_l.onnx and dw-ll_ucoco_384.onnx"),
        ({"captions": "describe"}, "needs poses, and data.poses is none"),
        ({"captions": "service"}, "model is empty, expected the name of a model"),
        ({"captions": "service", "model": "m"}, "there is no key for generativelanguage.googleapis.com: set GEMINI_API_KEY"),
        ({"min_frames": 30}, "data.min_frames is 30, and the longest clip has 17 frames"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(
    data: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"it is not looked at")
    with pytest.raises(UserError, match=message):
        build.build(videos.config(tmp_path / "out", **({"folder": tmp_path / "in"} | data)))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_videos(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x", "utf-8")
    with pytest.raises(UserError, match=r"there is no video in .* \(1 other files\)"):
        build.build(videos.config(tmp_path / "out", folder=tmp_path))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb reads its file, saves the resolved one, prints a summary, and fails when nothing comes out."""
    videos.write(tmp_path / "in" / "a.mp4", videos.moving(12), 24)
    given = videos.config(tmp_path / "out", folder=tmp_path / "in").model_dump(mode="json")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(given), "utf-8")
    assert command.main(["data", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "0 clips" in printed and "1 too_short: no clip of data.min_frames fits in here (such as a.mp4" in printed
    videos.write(tmp_path / "in" / "b.mp4", videos.moving(30), 24)
    assert command.main(["data", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 sources are finished already" in printed and "48x32x9: 1" in printed
    assert yaml.safe_load((tmp_path / "out" / "clips" / "config.yaml").read_text("utf-8")) == given
    # its own clips are not taken for sources, wherever they lie
    inside = videos.config(tmp_path / "in" / "out", folder=tmp_path / "in")
    assert len(build.build(inside)) == len(build.build(inside)) == 1
