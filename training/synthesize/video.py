"""Clips in and out of files: RGB uint8 (T, H, W, 3). The same frames always give the same bytes."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from headless.atomic import atomic
from headless.media import MediaError, read_video, sample_video

LOSSLESS_PIXELS = 256 * 256
"""Frames of at most so many pixels are kept without loss: there a codec's blocks are as large as the things to be seen."""

_CRF = "12"
_THREADS = 4  # not one a core: some codecs cut the picture by it, and the bytes must not depend on the machine
_BT601, _LIMITED = 6, 1


def suffix(lossless: bool) -> str:
    """Of the file that `write_clip` writes."""
    return ".mkv" if lossless else ".mp4"


def write_clip(path: Path, frames: np.ndarray, fps: float, lossless: bool) -> None:
    """Write a clip, whole or not at all: FFV1 in Matroska, which keeps every bit, or H.264 in mp4, for even sizes.

    Raises:
        ValueError: there are no frames, or an odd size for H.264.
        OSError: the disk is full, or not to be written to.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"got frames {frames.shape} of {frames.dtype}, expected uint8 (T, H, W, 3) with T above 0")
    height, width = frames.shape[1:3]
    if not lossless and (height % 2 or width % 2):
        raise ValueError(f"got frames of {width}x{height}, expected even sides for H.264")
    # to memory first: a full disk is then an error of ours, which libav does not always report
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska" if lossless else "mp4", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("ffv1" if lossless else "libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width, height
        stream.pix_fmt = "bgr0" if lossless else "yuv420p"
        stream.options = {"level": "3", "slices": "4", "flags": "+bitexact"} if lossless else {"crf": _CRF, "flags": "+bitexact"}
        stream.codec_context.thread_count = _THREADS
        if not lossless:
            stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    with atomic(path) as partial:
        partial.write_bytes(buffer.getvalue())


def read_clip(path: Path) -> np.ndarray:
    """All frames of a clip. Raises MediaError."""
    return read_video(path).frames


def first_frame(path: Path) -> np.ndarray:
    """RGB uint8 (H, W, 3). Raises MediaError."""
    return sample_video(path, [0.0], side=1 << 16)[0]


def read_timed(path: Path) -> tuple[np.ndarray, list[float], float]:
    """All frames of a video, the second at which each appears, and that at which the last disappears. Raises MediaError."""
    frames, times, shown = [], [], 0.0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video stream; expected a video")
            rate = container.streams.video[0].average_rate
            for frame in container.decode(video=0):
                frames.append(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
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
