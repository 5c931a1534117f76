"""Videos: looked through once from end to end, then read frame by frame; one frame is in memory at a time.

PyAV looks through a file, for its decoder says which frames it could not make out. Wanted frames are then read by decord
where there is a wheel of it and the video is short, else by PyAV: the same pictures. Presentation times decide; a stated frame
rate is only compared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from training.data.dropping import Drop

Reader = Literal["decord", "av"]
LIE = 0.02
"""Share by which a stated frame rate may differ from that of the timestamps."""
MOST_AHEAD = 512 << 20
"""Bytes of a whole decoded video up to which decord reads it: longer ones are read by PyAV, which keeps a few frames."""

# What is wrong with a file is found in other ways, and listed. PyAV's own way of logging takes Python's lock in a decoder's thread:
# where a damaged file is closed meanwhile, both wait for ever.
av.logging.restore_default_callback()
av.logging.set_libav_level(av.logging.PANIC)


@dataclass(frozen=True)
class VideoInfo:
    """What was found in a video.

    Attributes:
        times: Seconds since the first frame at which each appears, float64 (N,). `end`: at which the last one ends.
        height, width: Of an upright picture of square pixels.
        turned: Quarter turns that bring a stored picture upright. `stored`: its height and width as it is stored.
        note: What people should know: a frame rate that is not true.
    """

    path: Path
    times: np.ndarray
    end: float
    height: int
    width: int
    turned: int
    stored: tuple[int, int]
    note: str

    @property
    def fps(self) -> float:
        """Frames per second by the timestamps."""
        return len(self.times) / self.end

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """A stored picture as it is to be seen, RGB uint8 (height, width, 3)."""
        if self.turned:
            picture = np.ascontiguousarray(np.rot90(picture, self.turned))
        if picture.shape[:2] != (self.height, self.width):  # pixels that are not square
            picture = cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return picture


def look_through(path: Path, see: Callable[[int, np.ndarray], None] | None = None) -> VideoInfo:
    """Decode a whole file, once.

    Args:
        see: Given every frame with its number, as a picture of at most 256 pixels a side, RGB uint8.

    Raises:
        Drop: the file is empty, is no video or has none, is damaged, or its times do not grow.
    """
    if not path.is_file():
        raise Drop("missing_file", f"there is no file {path}")
    if path.stat().st_size == 0:
        raise Drop("empty", "got 0 bytes, expected a video; copy it again")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, ValueError) as error:
        raise Drop("unreadable", f"it cannot be opened as a video ({_brief(error)}); re-encode it as H.264 in mp4") from error
    with container:
        if not container.streams.video:
            raise Drop("no_video", "it has no stream of pictures")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stated = float(stream.guessed_rate or stream.average_rate or 0)
        return _looked(path, container, stated, see)


def _looked(path: Path, container: Any, stated: float, see: Callable[[int, np.ndarray], None] | None) -> VideoInfo:
    times: list[float | None] = []
    size, turned, lasts, square = (0, 0), 0, 0.0, 1.0
    to_rgb = VideoReformatter()  # one for all frames: made anew for each, its threads cost more than its work
    try:
        for index, frame in enumerate(container.decode(video=0)):
            if index == 0:
                size, turned = (frame.height, frame.width), round(frame.rotation / 90) % 4
                aspect = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
                aspect = aspect or container.streams.video[0].sample_aspect_ratio
                square = float(aspect) if aspect else 1.0
            if frame.is_corrupt:
                raise Drop("damaged", f"frame {index} is incomplete, expected all of them whole; get the file again")
            if (frame.height, frame.width) != size:
                raise Drop("damaged", f"frame {index} is {frame.width}x{frame.height}, expected {size[1]}x{size[0]} as the first")
            times.append(frame.time)
            lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            if see is not None:
                see(index, _small(frame, square, to_rgb))
    except (av.error.FFmpegError, ValueError) as error:
        raise Drop("damaged", f"it cannot be decoded past frame {len(times)} ({_brief(error)}); re-encode it") from error
    if not times:
        raise Drop("damaged", "it has zero frames, expected a video; get the file again")
    shown, end, note = _timed(times, lasts, stated)
    height, width = size[0], max(1, round(size[1] * square))
    if turned % 2:
        height, width = width, height
    return VideoInfo(path, shown, end, height, width, turned, size, note)


def _timed(times: Sequence[float | None], lasts: float, stated: float) -> tuple[np.ndarray, float, str]:
    """Times from zero on, the end of the last frame, and a note on a rate that is not true."""
    if any(time is None for time in times):
        if not stated:
            raise Drop("timestamps", "its frames have no times and it states no rate; re-encode it")
        return np.arange(len(times)) / stated, len(times) / stated, f"its frames have no times: taken at the stated {stated:g} fps"
    shown = np.array(times, np.float64)
    steps = np.diff(shown)
    if (steps <= 0).any():
        raise Drop("timestamps", f"the time of frame {int(np.argmax(steps <= 0)) + 1} is not after the one before; re-encode it")
    shown -= shown[0]
    usual = float(np.median(steps)) if len(steps) else 0.0
    # some containers give the last frame the length of a nominal one, or none
    end = float(shown[-1]) + (lasts if usual / 2 <= lasts <= 2 * usual else usual or lasts)
    if not end > 0:
        raise Drop("timestamps", "its only frame lasts no time; expected a video")
    rate = len(shown) / end
    if stated and len(shown) > 1 and abs(stated / rate - 1) > LIE:
        return shown, end, f"it states {stated:.4g} fps, its timestamps say {rate:.4g}: read by the timestamps"
    return shown, end, ""


def _small(frame: Any, square: float, to_rgb: VideoReformatter, side: int = 256) -> np.ndarray:
    scale = min(1.0, side / max(frame.width * square, frame.height))
    width, height = max(2, round(frame.width * square * scale)), max(2, round(frame.height * scale))
    return to_rgb.reformat(frame, width, height, "rgb24", interpolation="AREA").to_ndarray()


def readers() -> list[Reader]:
    """Those that are installed, the one that is used first."""
    return ["decord", "av"] if importlib.util.find_spec("decord") else ["av"]


def read(info: VideoInfo, wanted: Sequence[int], reader: Reader | None = None) -> Iterator[np.ndarray]:
    """The frames of these numbers, which do not decrease: upright RGB uint8 (height, width, 3).

    One that is wanted twice is the same object twice.

    Raises:
        Drop: the file ended early, or cannot be decoded any more.
    """
    pictures = _by_decord if (reader or readers()[0]) == "decord" else _by_av
    last, picture = -1, np.zeros(0)
    source = pictures(info, np.unique(wanted).tolist())
    for index in wanted:
        if index != last:
            stored = next(source, None)
            if stored is None:
                raise Drop("damaged", f"it ends before frame {index}, expected {len(info.times)} frames; it was changed meanwhile")
            last, picture = index, info.upright(stored)
        yield picture


def _by_av(info: VideoInfo, wanted: list[int]) -> Iterator[np.ndarray]:
    due = 0
    to_rgb = VideoReformatter()
    try:
        with av.open(str(info.path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                if due == len(wanted):
                    return
                if index == wanted[due]:
                    due += 1
                    yield to_rgb.reformat(frame, format="rgb24").to_ndarray()
    except av.error.FFmpegError as error:
        raise Drop("damaged", f"it cannot be decoded ({_brief(error)}); re-encode it") from error


def _by_decord(info: VideoInfo, wanted: list[int]) -> Iterator[np.ndarray]:
    # on a busy machine it decodes as far ahead as it likes, and keeps it all
    if info.turned or len(info.times) * 3 * info.stored[0] * info.stored[1] > MOST_AHEAD:  # and it turns some pictures itself
        yield from _by_av(info, wanted)
        return
    import decord  # its library is large, and not everybody has it

    decord.logging.set_level(decord.logging.FATAL)
    try:
        video = decord.VideoReader(str(info.path), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise Drop("damaged", f"decord cannot open it ({_brief(error)}); re-encode it as H.264 in mp4") from error
    if not _agrees(video, info):  # it counts frames that are there and not meant to be shown
        yield from _by_av(info, wanted)
        return
    for index in wanted:
        try:
            picture = video[index].asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise Drop("damaged", f"decord cannot decode frame {index} ({_brief(error)}); re-encode it") from error
        yield picture


def _agrees(video: Any, info: VideoInfo) -> bool:
    """Whether decord has the frames that are shown, at the times that they are shown."""
    if len(video) != len(info.times):
        return False
    starts = np.asarray(video.get_frame_timestamp(range(len(video))))[:, 0]
    return bool(np.abs(starts - starts[0] - info.times).max() < 2e-3)


def _brief(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
