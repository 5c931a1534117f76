"""Videos made on the fly for the tests of `training.data`, and configs to read them with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from training.config import Config, validated

MILLISECOND = Fraction(1, 1000)


def moving(count: int, height: int = 96, width: int = 64, shot: int = 0) -> list[np.ndarray]:
    """Frames RGB uint8: a square that wanders over a smooth background; each shot has colours of its own."""
    rng = np.random.default_rng(shot)
    corners = rng.integers(0, 256, (2, 2, 3))
    y, x = np.mgrid[:height, :width][0] / height, np.mgrid[:height, :width][1] / width
    back = (1 - y)[..., None] * corners[0, 0] + y[..., None] * corners[0, 1] + (x - 0.5)[..., None] * (corners[1, 0] - 128)
    colour, side = 255 - corners[0, 0], max(4, height // 5)
    frames = []
    for t in range(count):
        frame = back.clip(0, 255).astype(np.uint8)
        top, left = (round(side + t * height / 90) % (height - side)), round(t * width / 70) % (width - side)
        frame[top : top + side, left : left + side] = colour
        frames.append(frame)
    return frames


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float = 24.0,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    stated: float | None = None,
    **options: str,
) -> Path:
    """A video whose frames appear at `times` (seconds), or at a constant rate; B-frames and short groups unless told otherwise.

    Args:
        stated: The frame rate that the file says it has.
    """
    frames = list(frames)
    times = [t / fps for t in range(len(frames))] if times is None else times
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(stated or fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        stream.options = ({"crf": "10", "bf": "3", "g": "12"} if codec == "libx264" else {}) | options
        for time, frame in zip(times, frames, strict=True):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = round(time * 1000), MILLISECOND
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def read(path: Path) -> tuple[list[float], np.ndarray]:
    """Times and frames of a file."""
    with av.open(str(path)) as container:
        pairs = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [time for time, _ in pairs], np.stack([frame for _, frame in pairs])


def flip_bits(path: Path, target: Path) -> Path:
    """A copy in which bytes of the pictures are wrong and the rest of the file is right."""
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + 400
    for place in np.random.default_rng(0).integers(begin, begin + (len(data) - begin) // 2, 8):
        data[place] ^= 0xFF
    target.write_bytes(data)
    return target


def body(width: int, height: int, x: float, people: int = 1) -> dict[str, Any]:
    """A POSE_KEYPOINT frame with somebody who stands at x."""
    points: list[float] = []
    for joint in range(18):
        points += [x + 3 * (joint % 3), height * (0.2 + 0.035 * joint), 0.9]
    return {"people": [{"pose_keypoints_2d": points}] * people, "canvas_width": width, "canvas_height": height}


def config(out: Path, clip: dict[str, Any] | None = None, **data: Any) -> Config:
    """A run that makes clips of 9 to 17 frames at 8 fps, 48x32, in this process."""
    given = {"min_frames": 9, "max_frames": 17, "poses": "none", "captions": "none", "workers": 1, "shots": False} | data
    shape = {"fps": 8, "frames": 17, "lead_in": 0.25, "sizes": [[48, 32]]} | (clip or {})
    return validated({"out": out, "clip": shape, "backbone": {"name": "marionette"}, "data": given}, "the test")
