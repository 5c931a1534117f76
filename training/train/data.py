"""What each step of a run sees. Every choice follows from the run's seed, the step and the sample's place in the global batch:

so one process or many, one micro-batch or several, and a run that was stopped and goes on, all see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dreamactor_core.layout import get_layout
from training.backbones.base import Encoders, VideoBackbone
from training.config import Config
from training.errors import UserError
from training.latents import skeletons
from training.latents.encode import conditions_of
from training.latents.read import Cache
from training.train.objective import Batch, draw_sigma


class Order:
    """Which samples a step sees: each epoch is a new permutation, batches are of one size and length.

    A bucket whose samples do not fill its last batch is filled up from its beginning, so that none is left out.
    """

    def __init__(self, cache: Cache, batch: int, seed: int) -> None:
        self.buckets, self.batch, self.seed = cache.buckets(), batch, seed
        self.steps = sum(-(-len(members) // batch) for members in self.buckets.values())
        self._epoch, self._batches = -1, []

    def numbers(self, step: int) -> list[int]:
        """Samples of a step, of the global batch."""
        epoch, place = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._make(epoch)
        return self._batches[place]

    def _make(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for members in self.buckets.values():
            shuffled = [members[int(k)] for k in rng.permutation(len(members))]
            full = -(-len(shuffled) // self.batch) * self.batch
            filled = [shuffled[k % len(shuffled)] for k in range(full)]
            batches += [filled[k : k + self.batch] for k in range(0, full, self.batch)]
        return [batches[int(k)] for k in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Chance:
    """The random choices of one sample in one step."""

    seed: int
    step: int
    place: int

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.step, self.place])

    def torch(self) -> torch.Generator:
        # one number out of three, such that neighbours have nothing in common
        state = np.random.SeedSequence([self.seed, self.step, self.place, 1]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class Batches:
    """Makes batches out of a cache.

    Args:
        encoders: Needed when the cache keeps keypoints, whose skeletons are augmented, drawn and encoded anew each time.
    """

    def __init__(self, cache: Cache, backbone: VideoBackbone, settings: Config, encoders: Encoders | None = None) -> None:
        self.cache, self.backbone, self.settings, self.encoders = cache, backbone, settings, encoders
        self.layout = get_layout(settings.layout, settings.motion_context)
        if cache.metadata and cache.header("variants") == "0" and encoders is None:
            raise UserError("this cache keeps keypoints, expected the backbone's encoders to draw them with")
        self._by_body: dict[tuple[str, str], list[int]] = {}
        for number, place in enumerate(cache.places):
            self._by_body.setdefault((place.bucket, place.body), []).append(number)

    def batch(
        self, numbers: Sequence[int], chances: Sequence[Chance], train: bool = True
    ) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        """Samples with what is drawn for each: the batch, noise levels (B,) and noise like `clean`.

        With `train` False every call gives a sample the same augmentation, as a cache of skeletons has, and no text is dropped.
        """
        given, clean, contexts, sigmas, noises = [], [], [], [], []
        for number, chance in zip(numbers, chances, strict=True):
            rng, generator = chance.rng() if train else np.random.default_rng([0, number]), chance.torch()
            drop = train and rng.random() < self.settings.train.drop_text
            tensors = self.cache.tensors(number)
            made = {name: value.float() for name, value in self._condition(number, tensors, rng, train).items()}
            condition, target = made.pop("condition"), tensors["target"].float()
            clean.append(self._whole(target, condition))
            given.append(condition)
            contexts.append(self.cache.context(number, drop) | made)
            sigmas.append(draw_sigma(self.settings.train.timesteps, generator))
            noises.append(torch.randn(clean[-1].shape, generator=generator))
        t, h, w = target.shape[1:]
        masks = self.layout.known_mask(t, h, w), self.layout.generated_mask(t, h, w)
        context = {name: value.float() for name, value in self.backbone.collate(contexts).items()}
        return Batch(torch.stack(clean), torch.stack(given), *masks, context), torch.tensor(sigmas), torch.stack(noises)

    def _whole(self, target: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The composite with the true animation in its place, (C, t, h, w')."""
        t, h, w = target.shape[1:]
        generate = self.layout.generated_mask(t, h, w)[0]
        whole = torch.zeros_like(condition)
        whole[generate.expand_as(whole) > 0] = target.flatten()
        return torch.where(generate > 0, whole, condition)

    def _condition(
        self, number: int, tensors: dict[str, torch.Tensor], rng: np.random.Generator, train: bool
    ) -> dict[str, torch.Tensor]:
        """As `conditions_of` has it."""
        if "condition" in tensors:
            variants = {name: tensors[name] for name in ("condition", "motion") if name in tensors}
            variant = int(rng.integers(len(variants["condition"]))) if train else 0
            return {name: value[variant] for name, value in variants.items()}
        reference = tensors["reference"].permute(1, 2, 0).numpy()
        height, width = reference.shape[:2]
        poses = skeletons.from_array(tensors["joints"].numpy(), height, width)
        place = self.cache.places[number]
        others = self._by_body[place.bucket, place.body]
        other = others[int(rng.integers(len(others)))]
        joints = self.cache.tensors(other, ("joints",))["joints"].numpy()
        bodies = [] if other == number else [skeletons.from_array(joints, height, width)]
        poses = skeletons.augmented(poses, self.settings.cache.augment, rng, bodies)
        spec = self.settings.clip.spec(len(poses) + int(self.cache.header("lead_in")))
        (made,) = conditions_of(self.encoders, self.layout, [reference], [skeletons.drawn(poses)], spec)
        return {name: value.cpu() for name, value in made.items()}


def with_drivers_of(batch: Batch, numbers: Sequence[int]) -> Batch:
    """Each sample with the driver of another one of the batch: the control for whether a network follows its driver."""
    swapped = torch.where(batch.generate > 0, batch.given, batch.given[list(numbers)])
    clean = torch.where(batch.generate > 0, batch.clean, swapped)
    context = batch.context
    if "motion" in context:
        context = context | {"motion": context["motion"][list(numbers)]}
    return Batch(clean, swapped, batch.known, batch.generate, context)
