"""Bad input: each case is a valid workflow with one thing wrong, and is refused before anything is sampled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from bad_cases import CONDITIONING, DRIVER, REFERENCE, Case, Change, assert_refused, at, instead, write_good
from toys import (
    LENGTH,
    images,
    link,
    node,
    person,
    pose_frame,
    poses,
    run_saved,
    save,
    toy_pose,
    toy_rgb,
    workflow,
)

from headless.client import Client, Prompt
from headless.server import HostServer


def linked(name: str, text: str) -> Change:
    """Leads a number of any value into an input of In-Context Conditioning, past the widget's range."""

    def change(prompt: Prompt) -> None:
        prompt["number"] = {"class_type": "ToyFloat", "inputs": {"text": text}}
        node(prompt, CONDITIONING)[name] = ["number", 0]

    return change


def pose_file() -> Prompt:
    """The shipped pose workflow at toy size, its driver read from a file."""
    prompt = toy_pose()
    shipped = workflow("pose")
    prompt[link(prompt, "Driving poses")[0]] = shipped[link(shipped, "Driving poses")[0]]
    node(prompt, CONDITIONING)["driving_fps"] = link(prompt, "Driving poses", 1)
    return prompt


def video_file() -> Prompt:
    """The shipped rgb workflow at toy size, its driver read from a file."""
    prompt = toy_rgb()
    shipped = workflow("rgb")
    prompt[link(prompt, DRIVER)[0]] = shipped[link(shipped, DRIVER)[0]]
    return prompt


def poses_of(data: Any) -> Change:
    return instead("Driving poses", poses(data))


def on_a_pose_lora(change: Change) -> Change:
    return lambda prompt: (at("Motion LoRA", lora_name="pose.safetensors")(prompt), change(prompt))[1]


def _channels(title: str, what: str, frames: int) -> list[Case]:
    return [
        Case(
            f"{what} with {channels} channel(s)", instead(title, images(frames, channels=channels)),
            f"the {what} has {channels} channel", "expected 3 (RGB)", fix,
        )
        for channels, fix in ((1, "convert it to RGB"), (2, "convert it to RGB"), (4, "remove the alpha channel"))
    ]  # fmt: skip


MULTIPLE, NOT_WHOLE = "must be divisible by 16", "expected 0.1 to 240 frames per second"

CASES = [
    # sizes
    Case("width not divisible by 16", at(CONDITIONING, width=40), "width is 40", MULTIPLE, "nearest are 32 and 48"),
    Case("height not divisible by 16", at(CONDITIONING, height=99), "height is 99", MULTIPLE, "nearest are 96 and 112"),
    Case("skeleton not divisible by 16", at("Skeleton", width=30), "width is 30", MULTIPLE, "16 and 32", toy_pose),
    Case("no width at all", at(CONDITIONING, width=0), "Value 0", "smaller than min of 16"),
    # frames
    Case("zero driving frames", instead(DRIVER, images(0)), "the driver has zero frames", "at least one"),
    Case("zero reference images", instead(REFERENCE, images(0)), "the reference has zero frames", "at least one"),
    Case("two reference images", instead(REFERENCE, images(2)), "got 2 reference images", "expected one", "pick one"),
    Case("one driving frame", instead(DRIVER, images(1)), "got 1 driving frame at", "expected 3", "a longer driver"),
    Case("length 1", at(CONDITIONING, length=1), "Value 1", "smaller than min of 5"),
    Case("length not 4n+1", at(CONDITIONING, length=6), "got 6 frames", "expected 4n+1", "nearest are 5 and 9"),
    Case(
        "fewer driving frames than length",
        lambda prompt: (instead(DRIVER, images(8))(prompt), at(CONDITIONING, length=21)(prompt)),
        "got 8 driving frames at 12 fps", "expected 19", "set length to at most 9 or use a longer driver",
    ),
    # pictures
    *_channels(REFERENCE, "reference", 1),
    *_channels(DRIVER, "driver", LENGTH),
    Case("NaN in the reference", instead(REFERENCE, images(1, nan=True)), "the reference holds NaN", "", "look there"),
    Case("NaN in the driver", instead(DRIVER, images(LENGTH, nan=True)), "the driver holds NaN", "", "look there"),
    # poses
    Case("nobody", poses_of([pose_frame()] * 5), "nobody in any of the 5", "expected a person", "check", toy_pose),
    Case(
        "everybody below the threshold", poses_of([pose_frame(person(confidence=0.2))] * LENGTH),
        "nothing can be seen in any of the 5 frames", "not above the threshold of 0.3", "lower it", toy_pose,
    ),
    Case("poses that are no list", poses_of(5), "got int", "expected a list with one dict per frame", "", toy_pose),
    Case("zero pose frames", poses_of([]), "got zero frames", "at least one", "", toy_pose),
    Case("a pose frame that is null", poses_of([None]), "frame 0", "expected a dict with the keys", "", toy_pose),
    Case(
        "another skeleton", poses_of([pose_frame({"pose_keypoints_2d": [1.0] * 75})]),
        "got 75 numbers", "expected 54 (18 joints", "must be converted", toy_pose,
    ),
    Case(
        "strings for joints", poses_of([pose_frame({"pose_keypoints_2d": ["a"] * 54})]),
        "holds something that is not a number", "expected numbers or null", "", toy_pose,
    ),
    Case("no canvas", poses_of([{"people": [person()]}]), "frame 0", "must be whole numbers", "canvas_width", toy_pose),
    Case("a canvas of nothing", poses_of([pose_frame(person(), width=0)]), "0x32", "must be positive", "", toy_pose),
    Case(
        "mixed canvases", poses_of([pose_frame(person()), pose_frame(person(), width=64)]),
        "2 different canvas sizes", "expected one", "", toy_pose,
    ),
    Case(
        "a pose file that is not JSON", at("Driving poses", poses="torn.json"),
        "torn.json cannot be read as JSON", "expected a list of POSE_KEYPOINT frames", "", pose_file,
    ),
    Case(
        "a pose file of no known rate", at("Driving poses", poses="list.json"),
        "list.json does not say how fast", "", "set fps", pose_file,
    ),
    Case(
        "a pose file of an impossible rate", at("Driving poses", poses="rate.json"),
        "frame_ms is 'fast'", "expected a positive number", "", pose_file,
    ),
    Case("no pose file", at("Driving poses", poses="gone.json"), "no pose file 'gone.json'", base=pose_file),
    # a pose LoRA's driver
    Case(
        "a picture for a pose LoRA", on_a_pose_lora(instead("Skeleton", images(LENGTH))),
        "of the driver's pictures are black", "wants a skeleton on black", "put Pose Extract and Pose Draw in front", toy_pose,
    ),
    Case(
        "nobody in the frames that drive", on_a_pose_lora(poses_of([pose_frame()] * LENGTH + [pose_frame(person())])),
        "the driver is black in all of the 0.2 s", "expected a skeleton", "trim the driving video", toy_pose,
    ),
    # rates and lead-in
    Case("fps next to nothing", at(CONDITIONING, fps=0.0001), "fps is 0.0001", NOT_WHOLE, "correct it"),
    Case("fps without end", at(CONDITIONING, fps=1e9), "Value 1000000000.0", "bigger than max of 240"),
    Case("negative fps", at(CONDITIONING, fps=-1.0), "Value -1.0", "smaller than min of 0"),
    Case("fps not a number", linked("fps", "nan"), "fps is nan", NOT_WHOLE, "correct it"),
    Case("fps without end from another node", linked("fps", "inf"), "fps is inf", NOT_WHOLE, "correct it"),
    Case("driver's fps next to nothing", at(CONDITIONING, driving_fps=0.001), "the driver's fps is 0.001", NOT_WHOLE),
    Case(
        "a lead-in longer than the clip", at(CONDITIONING, lead_in=10.0),
        "lead-in of 120 frames", "leaves nothing of a clip of 5 frames", "lengthen the clip or shorten the lead-in",
    ),
    Case("a lead-in below 0", at(CONDITIONING, lead_in=-0.5), "the lead-in is -0.5 s", "expected 0 or more seconds"),
    Case("a lead-in not a number", linked("lead_in", "nan"), "lead-in is nan", "expected 0 or more seconds"),
    # videos
    Case("a driving file that is no video", at(DRIVER, file="torn.mp4"), "cannot be read", "", "re-encode", video_file),
    Case("a driving file without pictures", at(DRIVER, file="sound.mp4"), "no video stream", "", "", video_file),
]  # fmt: skip


def write_sound(path: Path) -> None:
    """An mp4 with a second of silence and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def files(shelf: Path, server: HostServer) -> None:
    """All files that the cases name."""
    write_good(shelf / "loras")
    frames = [pose_frame(person()) for _ in range(LENGTH)]
    (server.input_dir / "torn.json").write_text('[{"people": [')
    (server.input_dir / "list.json").write_text(json.dumps(frames))
    (server.input_dir / "rate.json").write_text(json.dumps({"frames": frames, "frame_ms": "fast"}))
    (server.input_dir / "torn.mp4").write_bytes(b"no video")
    write_sound(server.input_dir / "sound.mp4")


def test_there_are_enough_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 28


@pytest.mark.parametrize("base", [toy_rgb, toy_pose])
def test_the_unchanged_workflow_is_sampled(client: Client, files: None, base: Callable[[], Prompt]) -> None:
    """Otherwise the cases would prove nothing."""
    seen: list[str] = []
    client.run(base(), lambda progress: seen.append(progress.title))
    assert "Sampler" in seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_before_sampling(client: Client, files: None, case: Case) -> None:
    assert_refused(client, case)


def test_people_may_be_missing_in_some_frames(client: Client, tmp_path: Path) -> None:
    prompt = toy_pose()
    shown = [pose_frame(person(8.0 + t)) if t % 2 else pose_frame() for t in range(LENGTH)]
    shown[0]["people"] = None
    poses_of(shown)(prompt)
    wanted = {"skeleton": link(prompt, "Skeleton"), "frames": link(prompt, "Decode")}
    found = run_saved(client, save(prompt, **wanted), tmp_path)
    assert [bool(frame.any()) for frame in found["skeleton"]] == [t % 2 == 1 for t in range(LENGTH)]
    assert found["frames"].isfinite().all()
