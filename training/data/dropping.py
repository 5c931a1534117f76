"""Why a sample is not among those that came out. Every reason has a name; `docs/training/data.md` explains each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

REASONS = {
    "bad_line": "a line of the manifest is not what it should be",
    "missing_file": "a file that the manifest names is not there",
    "not_a_video": "the file's name is not that of a video",
    "empty": "the file has no bytes",
    "unreadable": "no reader takes the file for a video",
    "no_video": "the file has no stream of pictures",
    "damaged": "frames of the video cannot be decoded as they were",
    "crashed": "the process that read the file ended without a word, twice",
    "timestamps": "the frames have no times, or times that do not grow",
    "slow": "fewer than half of the frames that clip.fps asks for",
    "too_short": "no clip of data.min_frames fits in here",
    "too_small": "pictures would be enlarged by more than data.max_upscale",
    "duplicate": "the same file is there under another name",
    "no_poses": "there is no file of poses",
    "bad_poses": "the poses are not those of this video",
    "nobody": "nobody is seen in most frames",
    "no_caption": "there is no caption",
    "bad_text": "the service's text does not keep to the form, or it will not describe the clip",
    "bad_reference": "the reference image cannot be read",
    "not_aligned": "driver and target are of different lengths",
    "copy": "the driver is a copy of the target: a model would learn to copy it",
}
"""Name of a reason to what it means."""


@dataclass(frozen=True)
class Dropped:
    """One thing that is not among the samples.

    Attributes:
        source: The file, or the manifest and its line.
        start, end: Seconds of it; None for all of it.
        reason: Key of REASONS.
        detail: What was got and what was expected.
    """

    source: str
    reason: str
    detail: str
    start: float | None = None
    end: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For `dropped.jsonl`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Drop(Exception):
    """Raised where a clip or a whole source turns out to be of no use; the others go on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        assert reason in REASONS
        self.reason, self.detail = reason, detail

    def of(self, source: str, start: float | None = None, end: float | None = None) -> Dropped:
        """For the list."""
        seconds = [None if value is None else round(value, 3) for value in (start, end)]
        return Dropped(source, self.reason, self.detail, *seconds)
