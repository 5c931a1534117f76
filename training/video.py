"""Clips as files: written so that they are read back as they were, or nearly so."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from headless.atomic import atomic
from training.errors import UserError


def write_clip(path: Path, frames: np.ndarray, fps: float, lossless: bool = False) -> None:
    """Write RGB uint8 frames (T, H, W, 3), whole or not at all: H.264 of high quality, or FFV1 (into .mkv) without loss."""
    from fractions import Fraction

    with atomic(path) as partial, av.open(str(partial), "w", format="matroska" if path.suffix == ".mkv" else "mp4") as container:
        codec, options = ("ffv1", {}) if lossless else ("libx264", {"crf": "12", "preset": "medium"})
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if lossless else "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def read_clip(path: Path) -> np.ndarray:
    """All frames of a short file, RGB uint8 (T, H, W, 3). Raises UserError for what is not a video that can be read."""
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path} can't be read as a video ({error}); make it again") from error
    if not frames:
        raise UserError(f"{path} has no frames; make it again")
    return np.stack(frames)
