"""Samples to tensors: Eq. 2 in latents, by the functions that the nodes use."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dreamactor_core.clips import ClipSpec, add_lead_in
from dreamactor_core.conditions import build_condition
from dreamactor_core.layout import Layout
from dreamactor_core.order import steady_people
from dreamactor_core.poses import PoseSequence, from_pose_keypoint
from headless.media import read_image
from training.backbones.base import Context, Encoders
from training.config import Augment
from training.errors import UserError
from training.latents import skeletons
from training.latents.mirror import Mirrored, as_shown
from training.manifest import Sample
from training.video import read_clip


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """RGB uint8 (T, H, W, 3) to (1, 3, T, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def read_poses(sample: Sample) -> PoseSequence:
    """The target's poses, one frame for each of its frames, on its canvas. Raises UserError."""
    if sample.poses is None:
        raise UserError(f"sample {sample.id} has no poses, expected some for a pose LoRA; run `data` with poses: extract or file")
    try:
        data = json.loads(sample.poses.read_text("utf-8"))
        sequence = from_pose_keypoint(data["frames"] if isinstance(data, dict) else data)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"sample {sample.id}: {sample.poses} can't be read as POSE_KEYPOINT ({error})") from error
    if len(sequence) != sample.frames:
        raise UserError(f"sample {sample.id}: {sample.poses} has {len(sequence)} frames, expected the clip's {sample.frames}")
    fitted = sequence.fitted(sample.height, sample.width)
    return fitted.mirrored() if isinstance(sample, Mirrored) else fitted


def read_target(sample: Sample) -> np.ndarray:
    """The clip to be reconstructed, RGB uint8 (T, H, W, 3). Raises UserError when it is not what the manifest says."""
    frames = read_clip(sample.target_video)
    expected = (sample.frames, sample.height, sample.width, 3)
    if frames.shape != expected:
        raise UserError(f"sample {sample.id}: {sample.target_video} is {frames.shape}, expected {expected} as its line says")
    return as_shown(sample, frames)


def read_reference(sample: Sample, target: np.ndarray) -> np.ndarray:
    """The character, RGB uint8 (H, W, 3): the reference image, or the target's first frame."""
    if sample.reference_image is None:
        return target[0]
    picture = read_image(sample.reference_image)
    if picture.shape != target.shape[1:]:
        raise UserError(f"sample {sample.id}: {sample.reference_image} is {picture.shape}, expected {target.shape[1:]}")
    return as_shown(sample, picture)


def read_driver(sample: Sample, spec: ClipSpec) -> np.ndarray:
    """The raw video that drives, from the end of the lead-in on: (T - lead-in, H, W, 3). Raises UserError."""
    if sample.driving_video is None:
        raise UserError(f"sample {sample.id} has no driving_video, expected one for an rgb LoRA; `synthesize` makes them")
    if sample.driving_start > spec.lead_in:
        raise UserError(
            f"sample {sample.id}: its driver begins at frame {sample.driving_start}, expected at {spec.lead_in} or before, where "
            f"the lead-in ends"
        )
    frames = read_clip(sample.driving_video)[spec.lead_in - sample.driving_start :][: spec.driven]
    expected = (spec.driven, sample.height, sample.width, 3)
    if frames.shape != expected:
        raise UserError(f"sample {sample.id}: {sample.driving_video} gives {frames.shape} after the lead-in, expected {expected}")
    return as_shown(sample, frames)


def conditions_of(
    encoders: Encoders, layout: Layout, references: Sequence[np.ndarray], drivers: Sequence[np.ndarray], spec: ClipSpec
) -> list[dict[str, torch.Tensor]]:
    """Of each clip: `condition`, Z of Eq. 2 (C, t, h, w'), and for a cached motion context `motion` (C, t, h', w'). They are
    encoded together, from RGB uint8: references (H, W, 3), drivers (T - lead-in, H, W, 3)."""
    pictures = torch.cat([to_pixels(one[None])[:, :, 0] for one in references])
    driving = torch.cat([to_pixels(one) for one in drivers])
    made = build_condition(layout, pictures, driving, spec, encoders.encode, encoders.precision)
    parts = {"condition": made.latents} | ({} if made.motion is None else {"motion": made.motion})
    return [{name: value[k] for name, value in parts.items()} for k in range(len(references))]


def targets_of(
    encoders: Encoders, layout: Layout, targets: Sequence[np.ndarray], drivers: Sequence[np.ndarray], spec: ClipSpec
) -> torch.Tensor:
    """What is to be generated of each clip (B, C, t, h, w): cut from the composite with the true animation in its place, encoded as
    one video."""
    given = add_lead_in(torch.cat([to_pixels(one) for one in drivers]), spec)
    return layout.crop(encoders.encode(layout.join(torch.cat([to_pixels(one) for one in targets]), given)))


class Maker:
    """Makes the tensors of samples.

    Args:
        others: Poses of another sample of the same kind of body, for `augment.other_bodies`; None when there is none.
    """

    def __init__(
        self,
        encoders: Encoders,
        layout: Layout,
        spec_of: Callable[[int], ClipSpec],
        augment: Augment | None,
        variants: int,
        others: Callable[[Sample, np.random.Generator], PoseSequence | None],
        prompt: Callable[[Sample], str] = operator.attrgetter("caption"),
    ) -> None:
        self.encoders, self.layout, self.spec_of = encoders, layout, spec_of
        self.augment, self.variants, self.others, self.prompt = augment, variants, others, prompt

    def __call__(self, samples: Sequence[Sample], seeds: Sequence[int]) -> list[tuple[dict[str, torch.Tensor], Context]]:
        """Of each sample `target` (C, t, h, w), `condition` (variants, C, t, h, w') and for a cached motion context `motion`
        (variants, C, t, h', w'), or with no variants `reference` (3, H, W) uint8 and `joints` (T, people, 130, 3); and its context.

        All are of one size and length and are encoded together. `seeds`: of each sample's augmentation.
        """
        spec = self.spec_of(samples[0].frames)
        targets = [read_target(sample) for sample in samples]
        references = [read_reference(sample, target) for sample, target in zip(samples, targets, strict=True)]
        if self.augment is None:  # rgb
            drivers = [read_driver(sample, spec) for sample in samples]
            made = conditions_of(self.encoders, self.layout, references, drivers, spec)
            tensors = [{name: value[None] for name, value in one.items()} for one in made]
        else:
            # a driver has no lead-in: neither its bones nor its box may know of it
            poses = [steady_people(read_poses(sample)[spec.lead_in :]) for sample in samples]
            drivers = [skeletons.drawn(one) for one in poses]
            if self.variants:
                tensors = self._augmented(samples, references, poses, seeds, spec)
            else:
                pictures = [torch.from_numpy(np.ascontiguousarray(one)).permute(2, 0, 1) for one in references]
                joints = [torch.from_numpy(skeletons.to_array(one)) for one in poses]
                tensors = [{"reference": one, "joints": own} for one, own in zip(pictures, joints, strict=True)]
        texts = self.encoders.text([self.prompt(sample) for sample in samples])
        looks = [self.encoders.image(to_pixels(one[None])[0, :, 0]) for one in references]
        contexts = [text | look for text, look in zip(texts, looks, strict=True)]
        encoded = targets_of(self.encoders, self.layout, targets, drivers, spec)
        return [(own | {"target": target}, context) for own, target, context in zip(tensors, encoded, contexts, strict=True)]

    def _augmented(
        self,
        samples: Sequence[Sample],
        references: Sequence[np.ndarray],
        poses: Sequence[PoseSequence],
        seeds: Sequence[int],
        spec: ClipSpec,
    ) -> list[dict[str, torch.Tensor]]:
        """Of each sample all variants."""
        made = []
        for variant in range(self.variants):
            drivers = []
            for sample, own, seed in zip(samples, poses, seeds, strict=True):
                rng = np.random.default_rng([seed, variant])
                other = self.others(sample, rng)
                drivers.append(skeletons.drawn(skeletons.augmented(own, self.augment, rng, [other] if other else [])))
            made.append(conditions_of(self.encoders, self.layout, references, drivers, spec))
        return [{name: torch.stack([one[name] for one in own]) for name in own[0]} for own in zip(*made, strict=True)]
