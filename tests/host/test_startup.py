"""The pack as a part of the host: it starts fast and without the training packages, stops when told, keeps in sync."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors import safe_open
from toys import (
    FPS,
    LEAD_IN,
    SIZE,
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

from headless.client import Client, Progress, Prompt, PromptInterrupted, files
from headless.media import read_video
from headless.server import HostServer

ROOT = Path(__file__).resolve().parents[2]
TRAINING_ONLY = ("diffusers", "peft", "accelerate")
RATE = 48000
ONSET = 0.5
"""Second of the driving video's sound before which there is silence."""


def test_the_pack_starts_fast() -> None:
    seconds = []
    for _ in range(3):  # a busy machine takes longer, but not every time
        with HostServer(cpu=True) as server:
            (ours,) = (made for made in server.custom_nodes() if made.path.samefile(ROOT))
        seconds.append(ours.seconds)
        if ours.seconds <= 0.3:
            return
    raise AssertionError(f"the host's log says {seconds} s, expected at most 0.3 once")


def test_nothing_of_training_is_needed(client: Client, server: HostServer) -> None:
    """The server hides those packages from everything that is imported in it."""
    prompt = toy_rgb()
    names = ",".join(("torch", *TRAINING_ONLY))
    prompt["look"] = {"class_type": "ToyInstalled", "inputs": {"names": names}}
    client.run(prompt)
    found = client.run(prompt)["look"]
    assert found == {"installed": ["torch"], "imported": ["torch"]}
    assert "/training/" not in server.log()


@dataclass
class Interrupted:
    """A run that was interrupted at a step of a node.

    Attributes:
        steps: Those of the node that were reported, with the moment.
        requested: Seconds that the request to interrupt took.
        stopped: Seconds from there to the end of the run.
        title: The node at which it ended.
    """

    steps: list[tuple[int, float]]
    requested: float
    stopped: float
    title: str


def interrupt(client: Client, prompt: Prompt, title: str, at: int) -> Interrupted:
    """Run a workflow and interrupt it at the step `at` of a node."""
    steps: list[tuple[int, float]] = []
    request: list[float] = []

    def follow(progress: Progress) -> None:
        if progress.title == title and progress.maximum:
            steps.append((progress.value, time.monotonic()))
            if progress.value >= at and not request:
                request.append(time.monotonic())
                client.interrupt()
                request.append(time.monotonic())

    with pytest.raises(PromptInterrupted) as caught:
        client.run(prompt, follow, timeout=300)
    began, sent = request
    return Interrupted(steps, sent - began, time.monotonic() - sent, caught.value.title)


def test_cancelling_stops_sampling_within_a_step(client: Client) -> None:
    shipped = node(workflow("rgb"), "In-context conditioning")
    prompt = toy_rgb(shipped["length"], steps=150)  # the host reports steps of half a percent and a tenth of a second
    node(prompt, "In-context conditioning").update(width=shipped["width"], height=shipped["height"])
    node(prompt, "Sampler")["cfg"] = 3.0
    run = interrupt(client, prompt, "Sampler", 3)
    assert run.title == "Sampler"
    values, moments = zip(*run.steps, strict=True)
    step = (moments[-1] - moments[0]) / (values[-1] - values[0])
    # while the request was on its way the sampler went on; then it ended the step that was under way, or the next
    assert values[-1] <= 3 + run.requested / step + 1, run
    assert run.stopped <= 2 * step + 0.5, run


def test_cancelling_stops_drawing_within_frames(client: Client) -> None:
    prompt = toy_pose()
    count = 4000
    prompt[link(prompt, "Driving poses")[0]] = poses([pose_frame(person(8.0 + t % 16)) for t in range(count)])
    node(prompt, "Skeleton").update(width=512, height=512)
    run = interrupt(client, prompt, "Skeleton", 1)
    assert run.title == "Skeleton"
    assert run.steps[-1][0] < count / 2
    assert run.stopped < 5


def write_driver(path: Path, milliseconds: Sequence[int], sound_from: float | None = None) -> None:
    """An mp4 whose frame i appears at milliseconds[i] and has the grey level of `level(i)`.

    With two seconds of sound from second `sound_from` on, if it is given.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "1", "preset": "ultrafast"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        hum = container.add_stream("aac", rate=RATE, layout="stereo") if sound_from is not None else None
        for i, moment in enumerate(milliseconds):
            picture = np.full((SIZE, SIZE, 3), level(i), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if hum is not None:
            seconds = np.arange(2 * RATE) / RATE
            wave = np.where(seconds >= ONSET, 0.5 * np.sin(2 * np.pi * 440 * seconds), 0).astype(np.float32)
            block = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            block.sample_rate, block.pts = RATE, round(sound_from * RATE)
            container.mux(hum.encode(block))
            container.mux(hum.encode())


def level(index: int) -> int:
    """Grey of the driver's frame of that number: frames can be told apart after encoding."""
    return 30 + 6 * index


def driven_by(file: str, frames: int) -> Prompt:
    """The shipped rgb workflow at toy size, driven by a file."""
    prompt = toy_rgb(frames)
    shipped = workflow("rgb")
    prompt[link(prompt, "Driving video")[0]] = shipped[link(shipped, "Driving video")[0]]
    node(prompt, "Driving video")["file"] = file
    return prompt


@pytest.mark.parametrize(("begins", "trimmed"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25)])
def test_the_driver_s_audio_is_cut_to_the_frames(
    client: Client, server: HostServer, tmp_path: Path, begins: float, trimmed: float
) -> None:
    file = f"sound_{begins}_{trimmed}.mp4"
    write_driver(server.input_dir / file, range(0, 1580, 42), sound_from=begins)
    prompt, length = driven_by(file, 17), 17 - LEAD_IN
    if trimmed:
        cut = {"video": link(prompt, "Driving video"), "start_time": trimmed, "duration": 0.0, "strict_duration": False}
        prompt["trim"] = {"class_type": "Video Slice", "inputs": cut}
        node(prompt, "In-context conditioning")["driving"] = ["trim", 0]
    prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": link(prompt, "Decode", 1)}}
    save(prompt, frames=["parts", 0], audio=["parts", 1])
    outputs = client.run(prompt)
    path = client.download(files(outputs["save audio"])[0], tmp_path / "audio.safetensors")
    with safe_open(path, "pt") as file:
        audio, rate = file.get_tensor("value"), int(file.metadata()["sample_rate"])
    assert (audio.shape, rate) == ((1, 2, round(length / FPS * RATE)), RATE)
    loud = (audio[0].abs().amax(0) > 0.1).nonzero()
    assert float(loud[0]) / rate == pytest.approx(begins + ONSET - trimmed, abs=0.02), "the audio is out of sync"
    result = client.download(files(outputs[link(prompt, "Result")[0]])[0], tmp_path / "result.mp4")
    video = read_video(result)
    assert (len(video.frames), video.fps) == (length, FPS)
    with av.open(str(result)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / RATE == pytest.approx(length / FPS, abs=2048 / RATE)  # encoded in blocks


def test_a_variable_frame_rate_keeps_its_speed(client: Client, server: HostServer, tmp_path: Path) -> None:
    moments = [*range(0, 500, 25), *range(500, 1400, 200), *range(1400, 1600, 50)]  # 40, 5 and 20 frames a second
    write_driver(server.input_dir / "variable.mp4", moments)
    prompt, length = driven_by("variable.mp4", 17), 17 - LEAD_IN
    found = run_saved(client, save(prompt, composite=link(prompt, "In-context conditioning", 3)), tmp_path)
    shown = found["composite"][LEAD_IN:, :, SIZE:].mean((1, 2, 3)) * 255
    assert len(shown) == length
    due = [sum(moment <= 1000 * k / FPS + 1 for moment in moments) - 1 for k in range(length)]
    got = [min(range(len(moments)), key=lambda i, grey=grey: abs(level(i) - float(grey))) for grey in shown]
    assert got == due
