"""Videos as teachers take and give them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from headless.media import MediaError, sample_video

LOSSLESS_PIXELS = 256 * 256
"""Frames of at most so many pixels are kept without loss: there a codec's blocks are as large as the things to be seen."""


def suffix(lossless: bool) -> str:
    """Of the file that a clip is written to."""
    return ".mkv" if lossless else ".mp4"


def first_frame(path: Path) -> np.ndarray:
    """RGB uint8 (H, W, 3). Raises MediaError."""
    return sample_video(path, [0.0], side=1 << 16)[0]


def read_timed(path: Path) -> tuple[np.ndarray, list[float], float]:
    """All frames of a video, the second at which each appears, and that at which the last disappears. Raises MediaError."""
    frames, times, shown = [], [], 0.0
    to_rgb = VideoReformatter()  # one for all frames: made anew for each, its threads cost more than its work
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video stream; expected a video")
            rate = container.streams.video[0].average_rate
            for frame in container.decode(video=0):
                picture = to_rgb.reformat(frame, format="rgb24").to_ndarray()
                frames.append(np.rot90(picture, frame.rotation // 90))
                times.append(frame.time or 0.0)
                if frame.duration:
                    shown = float(frame.duration * frame.time_base)
    except av.error.FFmpegError as error:
        raise MediaError(f"{path} cannot be read as a video ({error})") from error
    if not frames:
        raise MediaError(f"{path} has no frames; expected a video")
    if not shown:
        shown = float(1 / rate) if rate else (times[-1] - times[0]) / max(1, len(times) - 1)
    return np.stack(frames), times, times[-1] + shown
