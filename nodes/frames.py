"""The frames of an IMAGE or a VIDEO one after the other: however long it is, one of them is in memory.

Files are read here and not by the host's `get_components`, which decodes all of a file into memory and takes the frame
rate to be constant; that goes for files that another node trimmed too. Of a video that a node made the host hands out
the frames, at a constant rate.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import comfy.model_management
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from comfy_api.latest import InputImpl

from ..dreamactor_core.clips import check_fps, resample_by_timestamp, resample_rate
from ..dreamactor_core.conditions import check_frames

_SLACK = 1e-6  # seconds
_MISSING = 0.25  # seconds at a file's end without which it is still taken


@dataclass(frozen=True)
class FrameStream:
    """Frames to come.

    Attributes:
        frames: RGB (H, W, 3), uint8. One that is shown twice is the same object twice.
        count: How many will come.
        rate: Frames per second, None for an IMAGE whose rate nobody stated.
        start: Second of a file's own clock at which the first one is shown, 0 for what is no file.
    """

    frames: Iterator[np.ndarray]
    count: int
    rate: float | None
    start: float = 0.0


def open_frames(source: Any, fps: float, what: str = "the input") -> FrameStream:
    """The frames of an IMAGE or a VIDEO.

    Args:
        source: IMAGE tensor or VIDEO. A VIDEO from a file is decoded as its frames are asked for, also where it is trimmed.
        fps: Frames per second wanted of a VIDEO, 0 for its own; of an IMAGE, which is taken as it is, what they are.
        what: What the source is called in errors.

    Raises:
        ValueError: no frames, no video, or a rate out of range. While frames are read: a damaged file, frames that are not RGB,
            or NaN.
    """
    if fps:
        check_fps(fps)
    if isinstance(source, torch.Tensor):
        check_frames(source[:1].movedim(-1, 1) if source.ndim == 4 else source, what)
        return FrameStream(_of_images(source, range(source.shape[0]), what), source.shape[0], fps or None)
    if isinstance(source, InputImpl.VideoFromFile):
        try:
            return _of_file(source, fps, what)
        except av.error.FFmpegError as error:
            raise damaged(error, what) from error
    components = source.get_components()
    check_frames(components.images[:1].movedim(-1, 1), what)
    own = check_fps(float(components.frame_rate), "the video's own rate")
    wanted = resample_rate(components.images.shape[0], own, fps or own).tolist()
    return FrameStream(_of_images(components.images, wanted, what), len(wanted), fps or own)


def _of_images(images: torch.Tensor, wanted: Iterable[int], what: str) -> Iterator[np.ndarray]:
    last, frame = -1, np.zeros(0)
    for index in wanted:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if index != last:
            image = images[index]
            check_frames(image.movedim(-1, 0)[None], what)
            last, frame = index, image.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
        yield frame


def _of_file(video: Any, fps: float, what: str) -> FrameStream:
    start, seconds = video.get_active_trim_window()
    with av.open(video.get_stream_source()) as container:
        if not container.streams.video:
            raise ValueError(f"{what} has no video stream, expected a video; choose another file")
        times, end, stamped = _timestamps(container, container.streams.video[0], fps or 30.0, what)
    # a trim counts from the zero of the file's clock, as the host's does; times of packets are rounded. One from the very
    # beginning counts from the first frame: in transport streams it comes seconds after zero
    stop = (start or times[0]) + seconds if seconds else end
    first = bisect.bisect_left(times, start - _SLACK) if start else 0
    inside = times[first : bisect.bisect_left(times, stop - _SLACK) if seconds else None]
    if not inside:
        raise ValueError(f"{what} has zero frames from second {start:g} to {stop:g}, expected at least one; trim it elsewhere")
    end = min(end, stop)
    own = len(inside) / max(end - inside[0], _SLACK)
    rate = fps or check_fps(own, "the video's own rate")
    wanted = resample_by_timestamp(inside, end, rate) + first
    return FrameStream(_decoded(video, times, stamped, wanted.tolist(), what), len(wanted), rate, inside[0])


def _timestamps(container: Any, stream: Any, fps: float, what: str) -> tuple[list[float], float, bool]:
    """Seconds at which each frame appears, in order, at which the last one ends, and whether frames tell theirs when decoded.

    Nothing is decoded for it.
    """
    # those to discard lie before the cut of a file that was cut without re-encoding: they are decoded but never shown
    packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    if not packets:
        raise ValueError(f"{what} has zero frames, expected at least one")
    usual = float(1 / stream.average_rate) if stream.average_rate else 1 / fps
    if any(packet.pts is None for packet in packets):
        return [i * usual for i in range(len(packets))], len(packets) * usual, False
    last = max(packets, key=lambda packet: packet.pts)
    stored = [float(packet.pts * packet.time_base) for packet in packets]
    times = sorted(stored)
    # AVI has no presentation times: what stands for them is of the order in which frames are decoded
    told = not (stream.codec_context.has_b_frames and stored == times)
    return times, times[-1] + (float(last.duration * last.time_base) if last.duration else usual), told


def _decoded(video: Any, times: list[float], stamped: bool, wanted: list[int], what: str) -> Iterator[np.ndarray]:
    """The pictures that are to be seen at these of the `times`; the indices do not decrease.

    Not all packets become frames: of a file that was cut without re-encoding the first ones lack what they refer to, and of a
    broken download the last ones are not there. The picture before stands still meanwhile, or the first one, so that what
    follows comes at its time.
    """
    due, count, failure = 0, len(wanted), None
    to_rgb = VideoReformatter()  # one for all frames: made anew for each, its threads cost more than its work
    last: av.VideoFrame | None = None  # what is on screen
    picture: np.ndarray | None = None  # of it, once somebody wants it

    def seen() -> np.ndarray:
        nonlocal picture
        if picture is None and last is not None:
            stored = to_rgb.reformat(last, format="rgb24").to_ndarray()
            # phones store frames as the sensor lies, and how to turn them
            picture = np.ascontiguousarray(np.rot90(stored, round(last.rotation / 90))) if last.rotation else stored
        assert picture is not None
        return picture

    try:
        with av.open(video.get_stream_source()) as container:
            for index, frame in enumerate(container.decode(video=0)):
                comfy.model_management.throw_exception_if_processing_interrupted()
                told = stamped and frame.pts is not None
                now = float(frame.pts * frame.time_base) if told else times[min(index, len(times) - 1)]
                while last is not None and due < count and times[wanted[due]] < now - _SLACK:
                    yield seen()
                    due += 1
                last, picture = frame, None
                while due < count and times[wanted[due]] <= now + _SLACK:
                    yield seen()
                    due += 1
                if due == count:
                    return
    except av.error.FFmpegError as error:
        failure = error
    left = times[wanted[-1]] - times[wanted[due]]
    if last is None or left > _MISSING:
        if failure is not None:
            raise damaged(failure, what) from failure
        raise ValueError(f"{what} ends after {due} of {count} frames; it is cut short or damaged, re-encode it")
    logging.warning("%s: its last %d frames cannot be decoded; the one before them stands still instead", what, count - due)
    for _ in range(due, count):
        yield seen()


def damaged(error: Exception, what: str) -> ValueError:
    """The error for a file that the decoder refuses."""
    return ValueError(f"{what} cannot be read ({error}); it is damaged, re-encode it")
