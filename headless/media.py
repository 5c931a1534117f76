"""Pictures and videos in and out of files: RGB, uint8, (height, width, 3) or (frames, height, width, 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps, ImageSequence

from .atomic import atomic

_UNSAID_MS = 100  # what browsers show a frame of an animated picture for when it asks for 10 ms or less
_MOST_FPS = 60.0


class MediaError(ValueError):
    """A file that is not the picture or video it should be."""


@dataclass(frozen=True, eq=False)
class Video:
    """A decoded video of constant frame rate."""

    frames: np.ndarray
    fps: float

    @property
    def times(self) -> list[float]:
        """Second at which each frame appears."""
        return [t / self.fps for t in range(len(self.frames))]


def read_image(path: Path) -> np.ndarray:
    """A picture, upright. Raises MediaError."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(
            f"{path} cannot be read as a picture ({error}); expected PNG, JPEG or WebP, save it as one"
        ) from error


def write_image(path: Path, picture: np.ndarray) -> None:
    """Write a PNG, atomically."""
    with atomic(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")


def _frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds since the first frame, and the frame, upright."""
    to_rgb = VideoReformatter()  # one for all frames: made anew for each, its threads cost more than its work
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video stream; expected an mp4, webm or mov with pictures in it")
            first: float | None = None
            for frame in container.decode(video=0):
                seconds = frame.time or 0.0
                first = seconds if first is None else first
                picture = to_rgb.reformat(frame, format="rgb24").to_ndarray()
                yield seconds - first, np.rot90(picture, frame.rotation // 90)
    except av.error.FFmpegError as error:
        raise MediaError(f"{path} cannot be read as a video ({error}); re-encode it as H.264 in mp4") from error


def check_video(path: Path) -> None:
    """Raises MediaError unless the file's first frame can be decoded."""
    for _ in _frames(path):
        return
    raise MediaError(f"{path} has no frames; expected a video with at least one second of pictures")


def read_video(path: Path) -> Video:
    """A whole video of constant frame rate, such as the result of a workflow. Raises MediaError."""
    frames = [frame for _, frame in _frames(path)]
    if not frames:
        raise MediaError(f"{path} has no frames")
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    return Video(np.stack(frames), float(rate or 1))


def sample_video(path: Path, times: Sequence[float], side: int = 1024) -> list[np.ndarray]:
    """The frames on screen at `times` (growing, seconds since the first frame), at most `side` pixels long.

    Only these are kept in memory, whatever the video's length. Past the end it is the last frame.
    """
    found: list[np.ndarray] = []
    shown: np.ndarray | None = None
    for seconds, frame in _frames(path):
        while shown is not None and len(found) < len(times) and times[len(found)] < seconds - 1e-4:
            found.append(shown)
        if len(found) == len(times):
            return found
        factor = side / max(frame.shape[:2])
        shown = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else frame
    if shown is None:
        raise MediaError(f"{path} has no frames; expected a video")
    return found + [shown] * (len(times) - len(found))


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float, crf: int = 14) -> None:
    """Write H.264 that browsers play, atomically; an odd size gets one more row or column."""
    with (
        atomic(path) as partial,
        av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = None
        for frame in frames:
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height, stream.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
                stream.options = {"crf": str(crf)}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        if stream is None:
            raise MediaError(f"there are no frames to write to {path}")
        container.mux(stream.encode())


def animation_to_mp4(source: Path, target: Path) -> None:
    """Turn an animated GIF or WebP into a video of constant frame rate that keeps its timing. Raises MediaError."""
    try:
        with Image.open(source) as image:
            frames, shown = [], []
            for frame in ImageSequence.Iterator(image):
                frames.append(np.asarray(frame.convert("RGB")))
                milliseconds = frame.info.get("duration", 0)
                shown.append(milliseconds if milliseconds > 10 else _UNSAID_MS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(f"{source} cannot be read as an animation ({error}); re-encode it as H.264 in mp4") from error
    if len(frames) < 2:
        raise MediaError(f"{source} is a still picture, expected an animation or a video; a driver must move")
    fps = min(_MOST_FPS, 1000 / min(shown))
    ends = np.cumsum(shown) / 1000
    wanted = np.arange(max(1, round(float(ends[-1]) * fps))) / fps
    picks = np.minimum(np.searchsorted(ends, wanted + 1e-6, side="right"), len(frames) - 1)
    write_mp4(target, (frames[i] for i in picks), fps)
