"""Whose body may take another's place in a skeleton: samples by their family of bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dreamactor_core.order import steady_people
from dreamactor_core.poses import PoseSequence
from training.config import Config
from training.latents.encode import read_poses
from training.manifest import Sample


@dataclass(frozen=True)
class Bodies:
    """Samples of each family of bodies: how many, which the random numbers hang on, and the samples where one's body may take
    the place of another's."""

    counts: Mapping[str, int]
    samples: Mapping[str, Sequence[Sample]]


def body_of(sample: Sample) -> str:
    """The family of bodies whose bones may take each other's place: people and cartoons are one."""
    return {"a quadruped": "quadruped", "a bird": "bird"}.get(sample.appearance, "person")


def bodies_of(settings: Config, samples: Sequence[Sample]) -> Bodies:
    """What `others_of` needs of all samples of a split."""
    by_body: dict[str, list[Sample]] = {}
    if settings.variant == "pose" and settings.cache.variants:
        for sample in samples:
            by_body.setdefault(body_of(sample), []).append(sample)
    return Bodies({body: len(own) for body, own in by_body.items()}, by_body if settings.cache.augment.other_bodies else {})


def others_of(bodies: Bodies) -> Callable[[Sample, np.random.Generator], PoseSequence | None]:
    """Draws the first pose of another sample of the same `appearance`, which in a drawn world names the kind of body."""

    def draw(sample: Sample, rng: np.random.Generator) -> PoseSequence | None:
        place = int(rng.integers(bodies.counts[body_of(sample)]))  # also where none is taken: the same numbers for the rest
        if not bodies.samples:
            return None
        other = bodies.samples[body_of(sample)][place]
        return None if other.id == sample.id else steady_people(read_poses(other)[:1])

    return draw
