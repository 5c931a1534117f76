"""Samples seen in a mirror, `cache.mirror`: twice the clips for nothing, where left and right mean nothing to what is trained."""

from __future__ import annotations

import re

import numpy as np

from training.manifest import Sample

MIRRORED = ".mirrored"
"""The end of a mirrored sample's id."""

_SIDES = re.compile(r"\b(left|right)\b|[左右]", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left", "左": "右", "右": "左"}


class Mirrored(Sample):
    """A sample whose pictures, videos and poses are read with left and right exchanged, as its texts already are."""


def in_mirror(sample: Sample) -> Mirrored:
    """The sample as a mirror shows it. Its id ends in `MIRRORED`."""
    texts = {name: exchanged(getattr(sample, name)) for name in ("caption", "motion", "appearance")}
    return Mirrored.model_construct(**dict(sample) | texts | {"id": f"{sample.id}{MIRRORED}"})


def exchanged(text: str) -> str:
    """The text with "left" and "right" exchanged, and their Chinese characters; capitals are kept.

    Words alone are looked at: "right after that" becomes "left after that".
    """

    def other(found: re.Match[str]) -> str:
        word = found[0]
        swapped = _OTHER[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return _SIDES.sub(other, text)


def as_shown(sample: Sample, picture: np.ndarray) -> np.ndarray:
    """A picture or clip (..., H, W, 3) of the sample, turned where the sample is a mirrored one."""
    return picture[..., ::-1, :] if isinstance(sample, Mirrored) else picture
