"""Clips in and out of files: RGB uint8 (T, H, W, 3)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from headless.atomic import atomic
from training.errors import UserError

_BT709 = 1  # FFmpeg's number of its primaries and transfer function


def write_clip(path: Path, frames: np.ndarray, fps: float, lossless: bool = True) -> None:
    """Write a clip, whole or not at all. Lossless (FFV1 in Matroska, for .mkv) gives `read_clip` the very same pixels; else H.264.

    Args:
        frames: RGB uint8 (T, H, W, 3); for H.264 an odd size gets one more row or column.

    Raises:
        ValueError: frames are not such an array.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"got frames {frames.dtype} {frames.shape}, expected RGB uint8 (T, H, W, 3) with at least one")
    if not lossless:
        frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    codec, pixels, kind = ("ffv1", "bgr0", "matroska") if lossless else ("libx264", "yuv420p", "mp4")
    # a lossless file always has the same bytes for the same frames (no random id inside): files are told by their hashes
    options = {"fflags": "+bitexact"} | ({} if lossless else {"movflags": "faststart"})
    with atomic(path) as partial, av.open(str(partial), "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        if not lossless:
            stream.options = {"crf": "14"}
            # written down in the file: players that are not told guess, and colours shift
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc = Colorspace.ITU709, _BT709, _BT709
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture if lossless else picture.reformat(format=pixels, dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode())


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """Frames one after the other, RGB uint8 (H, W, 3), upright. Raises UserError for a file that is no video or a broken one."""
    count = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} has no video stream, expected a clip; make it again")
            for frame in container.decode(video=0):
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"{path} can't be read as a video ({error.strerror or error}), expected a clip; make it again") from error
    if not count:
        raise UserError(f"{path} has no frames, expected a clip; make it again")


def read_clip(path: Path) -> np.ndarray:
    """All frames, RGB uint8 (T, H, W, 3). Raises UserError for a file that is no video, an empty or a broken one."""
    return np.stack(list(frames_of(path)))
