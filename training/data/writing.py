"""Clip files: of exactly the size, rate and number of frames that they are to have; whole or not there."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

from dreamactor_core.poses import PoseSequence, to_pose_keypoint
from headless.atomic import atomic
from training.errors import UserError

Coding = Literal["h264", "ffv1"]
CRF = 12
_BT601 = 5  # said in the file, so that whoever shows it turns the colours back as they were turned
_SETTINGS = {"h264": ("mp4", "libx264", "yuv420p"), "ffv1": ("matroska", "ffv1", "bgr0")}


class ClipEncoder:
    """Frames to a file in memory, whose bytes are the same each time.

    `h264`: high quality, in mp4. `ffv1`: lossless RGB, in Matroska.
    """

    def __init__(self, height: int, width: int, fps: float, coding: Coding = "h264") -> None:
        form, codec, pixels = _SETTINGS[coding]
        self.frames, self._buffer = 0, io.BytesIO()
        self._container = av.open(self._buffer, "w", format=form, options={"fflags": "bitexact"})
        stream = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.thread_count = 1  # the number of threads changes x264's result, and there is a process a core
        if coding == "h264":
            context.colorspace, context.color_range = _BT601, 1
            # with mbtree, x264 makes another file of the same small pictures each time
            stream.options = {"crf": str(CRF), "preset": "medium", "x264-params": "mbtree=0"}
        else:
            stream.options = {"level": "3", "coder": "1"}
        self._stream = stream

    def add(self, picture: np.ndarray) -> None:
        """RGB uint8 (height, width, 3)."""
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        self.frames += 1

    def finish(self) -> bytes:
        """The file's bytes. Nothing can be added any more."""
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._buffer.getvalue()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises UserError when the disk is full or may not be written to."""
    try:
        with atomic(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror or error}); make room, or see that {path.parent} may be written to, and "
            f"give the same command again: what is finished is kept"
        ) from error


def write_poses(path: Path, poses: PoseSequence, fps: float) -> None:
    """POSE_KEYPOINT frames with their rate. Raises UserError as `write_bytes`."""
    frames = to_pose_keypoint(poses)
    rounded = json.loads(json.dumps(frames), parse_float=lambda text: round(float(text), 3))  # a thousandth of a pixel
    write_bytes(path, json.dumps({"frames": rounded, "frame_ms": 1000 / fps}, separators=(",", ":")).encode())
