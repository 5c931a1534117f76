"""Where clips are cut, in time and in the picture: buckets WxHxF."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dreamactor_core.clips import fit_frames
from dreamactor_core.layout import TEMPORAL_STRIDE
from dreamactor_core.poses import PoseSequence
from training.config import Config
from training.data.dropping import Drop
from training.errors import UserError

BUCKET_STEP = 16
"""Frames between two lengths of clips: few lengths, so that batches of one shape can be filled."""


def lengths(config: Config) -> list[int]:
    """The lengths of clips, 4n+1 frames, the longest first.

    Raises:
        UserError: there is none, or the lead-in leaves nothing of the shortest.
    """
    data, clip = config.data, config.clip
    most = min(data.max_frames, clip.frames)
    longest = (most - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
    shortest = -(-(data.min_frames - 1) // TEMPORAL_STRIDE) * TEMPORAL_STRIDE + 1
    if longest < shortest:
        raise UserError(
            f"data.min_frames is {data.min_frames}, and the longest clip has {longest} frames (4n+1, of data.max_frames "
            f"{data.max_frames} and clip.frames {clip.frames}); lower data.min_frames to {longest} or less"
        )
    try:
        clip.spec(shortest)
    except ValueError as error:
        raise UserError(f"a clip of data.min_frames: {error}") from error
    return [longest, *range(shortest + (longest - shortest - 1) // BUCKET_STEP * BUCKET_STEP, shortest - 1, -BUCKET_STEP)]


def cut(starts: Sequence[int], count: int, allowed: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Cut shots into clips. Every frame is in one piece.

    Args:
        starts: First frame of each shot, growing, from 0 on. count: All frames.
        allowed: Lengths of clips, the longest first.

    Yields:
        First frame, frame after the last, and whether it is a clip; what is none is left over.
    """
    for begin, stop in zip(starts, [*starts[1:], count], strict=True):
        while begin < stop:
            length = next((length for length in allowed if length <= stop - begin), 0)
            yield begin, begin + (length or stop - begin), bool(length)
            begin += length or stop - begin


@dataclass(frozen=True)
class Window:
    """What of a source's picture a clip shows: scaled alike in both directions, then cut evenly at its sides.

    Attributes:
        source: Height and width of the source. `height`, `width`: of the clip.
    """

    source: tuple[int, int]
    height: int
    width: int

    @property
    def scale(self) -> float:
        """Above 1, the picture is enlarged."""
        return max(self.height / self.source[0], self.width / self.source[1])

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """A frame RGB uint8 of the source in the clip's size, by the function that the nodes use."""
        if frame.shape[:2] == (self.height, self.width):
            return frame
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
        fitted = fit_frames(pixels, self.height, self.width, "crop")[0]
        return ((fitted + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()

    def poses(self, poses: PoseSequence) -> PoseSequence:
        """Poses on a canvas of the source's shape, of whatever size, in pixels of the clip.

        Raises:
            Drop: the canvas is of another shape than the source.
        """
        canvas, source = poses.width / poses.height, self.source[1] / self.source[0]
        if abs(canvas / source - 1) > 0.02:
            raise Drop(
                "bad_poses",
                f"their canvas is {poses.width}x{poses.height}, expected the shape of the video, {self.source[1]}x{self.source[0]}",
            )
        new = [max(1, round(side * self.scale)) for side in self.source]
        offset = ((self.width - new[1]) // 2, (self.height - new[0]) // 2)  # rounded as `fit_frames` does
        scale = (new[1] / poses.width, new[0] / poses.height)
        frames = [[person.mapped(scale, offset) for person in people] for people in poses.frames]
        return PoseSequence(frames, self.height, self.width, poses.tracked)


def choose_size(height: int, width: int, sizes: Sequence[tuple[int, int]], most: float) -> Window:
    """The size (width, height) whose shape is nearest to the source's; of several of that shape the largest that is allowed.

    Raises:
        Drop: the source would be enlarged by more than `most`.
    """

    def distance(size: tuple[int, int]) -> float:
        return round(abs(math.log(size[0] / size[1] * height / width)), 4)

    nearest = min(map(distance, sizes))
    windows = [Window((height, width), size[1], size[0]) for size in sizes if distance(size) == nearest]
    allowed = [window for window in windows if window.scale <= most]
    if not allowed:
        least = min(windows, key=lambda window: window.scale)
        raise Drop(
            "too_small",
            f"its pictures are {width}x{height}, for {least.width}x{least.height} they would be enlarged {least.scale:.2f} times, "
            f"expected at most {most:g}",
        )
    return max(allowed, key=lambda window: window.height * window.width)
