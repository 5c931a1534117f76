"""Measures of a synthesized clip that need no service. Another one is another file here and a line in MEASURES."""

from __future__ import annotations

from .clip import Measure, Pair
from .flicker import Flicker
from .identity import Identity
from .motion import PoseMotion
from .motion_flow import FlowMotion

__all__ = ["MEASURES", "Measure", "Pair"]

MEASURES: dict[str, Measure] = {measure.name: measure for measure in (Identity(), PoseMotion(), FlowMotion(), Flicker())}
"""By the name that stands in `score.measures` and in a sample's scores."""
