"""The frames of a file one after the other: which of them, and at what rate."""

from __future__ import annotations

import weakref
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from comfy_api.latest import InputImpl, Types
from toys import write_video


@pytest.mark.parametrize(
    ("trim", "fps", "shown", "rate"),
    [
        ({}, 0.0, range(24), 24.0),
        ({}, 12.0, range(0, 24, 2), 12.0),
        ({}, 48.0, [i // 2 for i in range(48)], 48.0),
        ({"start_time": 0.25, "duration": 0.5}, 0.0, range(6, 18), 24.0),
        ({"start_time": 0.25, "duration": 0.5}, 12.0, range(6, 18, 2), 12.0),
        ({"start_time": 0.75}, 0.0, range(18, 24), 24.0),
        ({"start_time": -0.25}, 0.0, range(18, 24), 24.0),
        ({"duration": 0.25}, 24.0, range(6), 24.0),
    ],
)
def test_the_frames_of_a_file(
    pack: ModuleType, tmp_path: Path, trim: dict[str, float], fps: float, shown: Any, rate: float
) -> None:
    frames = import_module(f"{pack.__name__}.nodes.frames")
    pictures = [np.full((32, 48, 3), 10 * i, np.uint8) for i in range(24)]
    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "grey.mp4", pictures)), **trim)
    stream = frames.open_frames(video, fps)
    got = [int(frame[0, 0, 0]) // 10 for frame in stream.frames]
    assert got == list(shown)
    assert (stream.count, stream.rate) == (len(got), pytest.approx(rate, rel=1e-3))
    if not fps:
        theirs = video.get_components().images
        assert [round(float(image[0, 0, 0]) * 25.5) for image in theirs] == got, "as the host trims it"
    with pytest.raises(ValueError, match="zero frames from second 5"):
        frames.open_frames(InputImpl.VideoFromFile(str(tmp_path / "grey.mp4"), start_time=5.0, duration=1.0), fps)


def test_a_variable_frame_rate_keeps_its_speed(pack: ModuleType, tmp_path: Path) -> None:
    frames = import_module(f"{pack.__name__}.nodes.frames")
    moments = [*range(0, 500, 25), *range(500, 1500, 100)]
    pictures = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(len(moments))]
    path = write_video(tmp_path / "variable.mp4", pictures, 1000, moments)
    stream = frames.open_frames(InputImpl.VideoFromFile(str(path)), 20.0)
    got = [int(frame[0, 0, 0]) // 8 for frame in stream.frames]
    assert got == [max(i for i, m in enumerate(moments) if m <= 50 * k + 1) for k in range(len(got))]
    components = InputImpl.VideoFromComponents(InputImpl.VideoFromFile(str(path)).get_components())
    assert frames.open_frames(components, 0.0).count == len(moments)


@pytest.fixture
def trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Six seconds of a larger video, from its second 2 on; the host's own way to read it is shut."""

    def everything(self: Any) -> None:
        raise AssertionError("the whole video was decoded into memory")

    pictures = [np.full((96, 160, 3), i, np.uint8) for i in range(240)]
    path = write_video(tmp_path / "long.mp4", pictures)
    monkeypatch.setattr(InputImpl.VideoFromFile, "get_components", everything)
    return InputImpl.VideoFromFile(str(path), start_time=2.0, duration=6.0)


def test_a_model_is_shown_a_trimmed_video_without_all_of_it_in_memory(
    pack: ModuleType, trimmed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = import_module(f"{pack.__name__}.nodes.text")
    shrink, alive, most = text.shrink, [], 0

    def counted(picture: np.ndarray, budget: Any) -> np.ndarray:
        nonlocal most
        alive[:] = [one for one in alive if one() is not None] + [weakref.ref(picture)]
        most = max(most, len(alive))
        return shrink(picture, budget)

    monkeypatch.setattr(text, "shrink", counted)
    prompt, shown = text.TextPrompt.execute("motion", "en", images=trimmed, longest_side=80).result
    assert "20 frames, 4 frames per second" in prompt
    assert shown.shape == (20, 48, 80, 3) and shown.dtype == torch.float32
    assert [round(float(grey) * 255) for grey in shown.mean((1, 2, 3))] == list(range(48, 168, 6))
    assert most <= 3, "large frames are kept"


def test_a_driver_that_is_trimmed_is_not_decoded_whole(pack: ModuleType, trimmed: Any) -> None:
    video = import_module(f"{pack.__name__}.nodes.video")
    frames, audio = video.read_driver(trimmed, 12.0, 10, lambda images: images.movedim(-1, 1))
    assert [round(float(grey) * 255) for grey in frames.mean((1, 2, 3))] == list(range(48, 68, 2))
    assert tuple(frames.shape) == (10, 3, 96, 160) and audio is None


def without_packets(path: Path, missing: range) -> Path:
    """Grey pictures 0 to 39, two levels each, at 20 frames a second with a key frame every ten; some of the packets are left out
    of the file, and for those that are left out at the end there is rubbish."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"qp": "1", "g": "10", "bf": "0", "sc_threshold": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        frames = (av.VideoFrame.from_ndarray(np.full((32, 48, 3), 4 * i, np.uint8), format="rgb24") for i in range(40))
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        for i, packet in enumerate(packets):
            if i in missing and i >= 30:
                data = bytes(packet)
                rubbish = av.Packet(data[:5] + bytes(len(data) - 5))
                rubbish.stream, rubbish.time_base = stream, packet.time_base
                rubbish.pts, rubbish.dts, rubbish.duration = packet.pts, packet.dts, packet.duration
                container.mux(rubbish)
            elif i not in missing:
                container.mux(packet)
    return path


def greys(stream: Any) -> list[int]:
    """The numbers of the pictures."""
    return [round(float(frame.mean()) / 4) for frame in stream.frames]


@pytest.mark.parametrize("fps", [0.0, 10.0])
def test_frames_that_cannot_be_decoded_do_not_move_the_others(pack: ModuleType, tmp_path: Path, fps: float) -> None:
    """As a file begins that was cut without re-encoding: without the key frame that its first ones refer to."""
    frames = import_module(f"{pack.__name__}.nodes.frames")
    video = InputImpl.VideoFromFile(str(without_packets(tmp_path / "cut.mkv", range(3))))
    stream = frames.open_frames(video, fps)
    step = 2 if fps else 1
    # the first seven show the first picture there is; the eleventh, and all others, come at their own times
    assert greys(stream) == [max(10, i) for i in range(3, 40, step)]


def test_an_end_that_cannot_be_decoded_stands_still_if_it_is_short(
    pack: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = import_module(f"{pack.__name__}.nodes.frames")
    short = InputImpl.VideoFromFile(str(without_packets(tmp_path / "short.mkv", range(36, 40))))
    assert greys(frames.open_frames(short, 0.0)) == [min(35, i) for i in range(40)]
    assert "the input: its last 4 frames cannot be decoded" in caplog.text
    long = InputImpl.VideoFromFile(str(without_packets(tmp_path / "long.mkv", range(30, 40))))
    stream = frames.open_frames(long, 0.0)
    with pytest.raises(ValueError, match=r"the input (ends after 30 of 40 frames|cannot be read)"):
        greys(stream)


@pytest.mark.parametrize(("layout", "rate"), [("mono", 48000), ("4.0", 48000), ("7.1", 44100), ("stereo", 37800), ("5.1", 192000)])
def test_the_host_can_save_whatever_sound_a_driver_has(pack: ModuleType, tmp_path: Path, layout: str, rate: int) -> None:
    sound_of = import_module(f"{pack.__name__}.nodes.video").sound_of
    with av.open(str(tmp_path / "driver.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * 8000  # a second of it
        block = av.AudioFrame.from_ndarray(np.repeat(wave[:, None], channels, 1).astype(np.int16).reshape(1, -1), "s16", layout)
        block.sample_rate = rate
        container.mux([*stream.encode(block), *stream.encode(None)])
    audio = sound_of(InputImpl.VideoFromFile(str(tmp_path / "driver.mkv")), 0.0, 1.0, "the driver")
    heard = audio["waveform"]
    assert heard.shape[1] in (1, 2, 6) and heard.shape[2] == pytest.approx(audio["sample_rate"], rel=0.01)
    assert 0.1 < float(heard.abs().max()) < 1
    images = torch.zeros(20, 64, 96, 3)
    made = Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(20))
    InputImpl.VideoFromComponents(made).save_to(str(tmp_path / "result.mp4"))
    with av.open(str(tmp_path / "result.mp4")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / audio["sample_rate"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", ["avi", "mp4", "mkv", "ts"])
def test_frames_that_are_decoded_in_another_order_come_in_theirs(pack: ModuleType, tmp_path: Path, kind: str) -> None:
    """AVI holds no presentation times, a transport stream begins late."""
    frames = import_module(f"{pack.__name__}.nodes.frames")
    path = tmp_path / f"ordered.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"qp": "1", "bf": "2", "b_strategy": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for i in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), 4 * i, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert greys(frames.open_frames(InputImpl.VideoFromFile(str(path)), 0.0)) == [*range(40)]
    cut = frames.open_frames(InputImpl.VideoFromFile(str(path), duration=1.0), 20.0)
    assert greys(cut) == [*range(20)], "a second from the first frame on"
