"""Clips in and out of files: RGB uint8 (T, H, W, 3). The same frames always give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from headless.atomic import atomic
from training.errors import UserError

Coding = Literal["h264", "ffv1"]
_SETTINGS = {"h264": ("mp4", "libx264", "yuv420p"), "ffv1": ("matroska", "ffv1", "bgr0")}
_CRF = 12
_BT709 = 1  # FFmpeg's number of its primaries, transfer function and matrix


class ClipEncoder:
    """Frames to a file in memory, whose bytes depend on the frames alone.

    `ffv1`: lossless RGB, in Matroska. `h264`: high quality, in mp4; an odd size gets one more row or column.
    """

    def __init__(self, height: int, width: int, fps: float, coding: Coding = "h264") -> None:
        form, codec, pixels = _SETTINGS[coding]
        self.frames, self._buffer, self._lossless = 0, io.BytesIO(), coding == "ffv1"
        self._odd = (0, 0) if self._lossless else (height % 2, width % 2)
        # without an id drawn at random: files are told by their hashes
        self._container = av.open(self._buffer, "w", format=form, options={"fflags": "+bitexact"})
        stream = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height + self._odd[0], width + self._odd[1], pixels
        context = stream.codec_context
        context.thread_count = 1  # the number of threads changes what codecs make
        if self._lossless:
            stream.options = {"level": "3", "coder": "1"}
        else:
            # with mbtree, x264 makes another file of the same small pictures each time
            stream.options = {"crf": str(_CRF), "preset": "medium", "x264-params": "mbtree=0"}
            # said in the file: players that are not told guess, and colours shift
            context.colorspace, context.color_primaries, context.color_trc = Colorspace.ITU709, _BT709, _BT709
        self._stream, self._reformatter = stream, VideoReformatter()

    def add(self, picture: np.ndarray) -> None:
        """One frame, RGB uint8 (height, width, 3)."""
        if any(self._odd):
            picture = np.pad(picture, ((0, self._odd[0]), (0, self._odd[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if not self._lossless:
            frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def finish(self) -> bytes:
        """The file's bytes. Nothing can be added any more."""
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._buffer.getvalue()


def write_clip(path: Path, frames: np.ndarray, fps: float, lossless: bool = True) -> None:
    """Write a clip, whole or not at all: lossless into .mkv, which gives `read_clip` the very same pixels, else H.264 into .mp4.

    Raises:
        ValueError: frames are not RGB uint8 (T, H, W, 3) with T above 0.
        OSError: the disk is full, or not to be written to.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"got frames {frames.dtype} {frames.shape}, expected RGB uint8 (T, H, W, 3) with at least one")
    encoder = ClipEncoder(*frames.shape[1:3], fps, "ffv1" if lossless else "h264")
    for picture in frames:
        encoder.add(picture)
    with atomic(path) as partial:
        partial.write_bytes(encoder.finish())


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """Frames one after the other, RGB uint8 (H, W, 3), upright. Raises UserError for a file that is no video or a broken one."""
    count = 0
    to_rgb = VideoReformatter()  # one for all frames: made anew for each, its threads cost more than its work
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} has no video stream, expected a clip; make it again")
            for frame in container.decode(video=0):
                picture = to_rgb.reformat(frame, format="rgb24").to_ndarray()
                yield np.ascontiguousarray(np.rot90(picture, frame.rotation // 90))
                count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"{path} can't be read as a video ({error.strerror or error}), expected a clip; make it again") from error
    if not count:
        raise UserError(f"{path} has no frames, expected a clip; make it again")


def read_clip(path: Path) -> np.ndarray:
    """All frames, RGB uint8 (T, H, W, 3). Raises UserError for a file that is no video, an empty or a broken one."""
    return np.stack(list(frames_of(path)))
