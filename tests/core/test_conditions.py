"""What the network is given, with an encoder whose answers are known: it averages as a causal video VAE would."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dreamactor_core.clips import ClipSpec
from dreamactor_core.conditions import Condition, build_condition, check_frames
from dreamactor_core.layout import BLANK, LAYOUTS, Layout

SPECS = [ClipSpec(5, 0, 16), ClipSpec(9, 4, 12), ClipSpec(25, 8, 12), ClipSpec(17, 7, 8)]
HEIGHT, WIDTH, STRIDE = 16, 24, 8


def encode(pixels: torch.Tensor) -> torch.Tensor:
    """Latent frame 0 averages frame 0, latent frame i frames 4i-3 .. 4i, over squares of 8 pixels."""
    groups = [pixels[:, :, :1], *pixels[:, :, 1:].split(4, dim=2)]
    averaged = torch.cat([group.mean(2, keepdim=True) for group in groups], 2)
    return F.avg_pool3d(averaged, (1, STRIDE, STRIDE))


def inputs(spec: ClipSpec, batch: int = 1, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(spec.frames)
    reference = torch.rand(batch, 3, HEIGHT, WIDTH, generator=generator) * 0.8 + 0.1
    driving = -torch.rand(batch, 3, spec.driven + extra, HEIGHT, WIDTH, generator=generator) * 0.8 - 0.1
    return reference, driving


def build(layout: Layout, spec: ClipSpec, batch: int = 1, extra: int = 0) -> Condition:
    return build_condition(layout, *inputs(spec, batch, extra), spec, encode, torch.float32)


cases = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
lengths = pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.frames}-{s.lead_in}")


@cases
@lengths
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("extra", [0, 3])
def test_masks_fit_the_latents(layout: Layout, spec: ClipSpec, batch: int, extra: int) -> None:
    condition = build(layout, spec, batch, extra)
    assert condition.known.shape == condition.generate.shape == (1, 1, *condition.latents.shape[2:])
    assert torch.equal(condition.latents, encode(condition.composite))
    assert layout.crop(condition.latents).shape[-3:] == (spec.frames // 4 + 1, HEIGHT // STRIDE, WIDTH // STRIDE)


@cases
@lengths
def test_what_is_to_be_generated_is_blank(layout: Layout, spec: ClipSpec) -> None:
    condition = build(layout, spec)
    unknown = (condition.known == 0).expand_as(condition.latents)
    assert (condition.latents[unknown] == BLANK).all()


@cases
@lengths
def test_the_reference_reaches_frame_0_of_the_result_only(layout: Layout, spec: ClipSpec) -> None:
    reference, driving = inputs(spec)
    one = build_condition(layout, reference, driving, spec, encode, torch.float32)
    other = build_condition(layout, reference + 0.1, driving, spec, encode, torch.float32)
    changed = (one.latents != other.latents).any(1, keepdim=True)
    assert torch.equal(changed, (one.known * one.generate).bool())


@cases
@lengths
def test_the_driver_reaches_the_drivers_part_only(layout: Layout, spec: ClipSpec) -> None:
    reference, driving = inputs(spec)
    one = build_condition(layout, reference, driving, spec, encode, torch.float32)
    other = build_condition(layout, reference, driving - 0.1, spec, encode, torch.float32)
    changed = (one.latents != other.latents).any(1, keepdim=True)
    assert not (changed & (one.generate > 0)).any()
    assert changed.any()


@cases
@lengths
@pytest.mark.parametrize("extra", [0, 2, 30])
def test_the_driver_starts_after_the_lead_in(layout: Layout, spec: ClipSpec, extra: int) -> None:
    reference, driving = inputs(spec, extra=extra)
    composite = build_condition(layout, reference, driving, spec, encode, torch.float32).composite
    if layout.name == "spatial":
        motion = composite[..., WIDTH:]
    else:
        motion = composite[:, :, spec.frames + 3 :]
        assert torch.equal(composite[:, :, spec.frames : spec.frames + 3], motion[:, :, :1].expand(-1, -1, 3, -1, -1))
    assert motion.shape[2] == spec.frames
    assert (motion[:, :, : spec.lead_in] == BLANK).all()
    assert torch.equal(motion[:, :, spec.lead_in :], driving[:, :, : spec.driven])


@cases
def test_the_encoder_is_called_once_with_the_composite(layout: Layout) -> None:
    calls = []

    def spy(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(pixels)
        return encode(pixels)

    condition = build_condition(layout, *inputs(SPECS[1]), SPECS[1], spy, torch.float32)
    assert len(calls) == 1
    assert calls[0] is condition.composite


@cases
def test_too_short_a_driver_and_other_sizes_are_refused(layout: Layout) -> None:
    spec = SPECS[2]
    reference, driving = inputs(spec)
    with pytest.raises(ValueError, match="got 16 driving frames"):
        build_condition(layout, reference, driving[:, :, :-1], spec, encode, torch.float32)
    with pytest.raises(ValueError, match="differ in batch, channels or size"):
        build_condition(layout, reference[..., :-1], driving, spec, encode, torch.float32)


@pytest.mark.parametrize("count", [1, 7])
def test_sound_frames_pass(count: int) -> None:
    check_frames(torch.rand(count, 3, 4, 5), "the driver")


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(3, 4, 5), r"the driver has shape \(3, 4, 5\), expected a batch of images"),
        (torch.zeros(1, 3, 5, 4, 4), r"the driver has shape \(1, 3, 5, 4, 4\)"),
        (torch.zeros(0, 3, 4, 5), "the driver has zero frames"),
        (torch.zeros(2, 4, 4, 5), "the driver has 4 channels, expected 3 .*remove the alpha channel"),
        (torch.zeros(2, 1, 4, 5), "the driver has 1 channels, expected 3 .*convert it to RGB"),
        (torch.full((1, 3, 4, 5), float("nan")), "the driver holds NaN or infinite"),
        (torch.full((1, 3, 4, 5), float("inf")), "the driver holds NaN or infinite"),
    ],
    ids=["3 axes", "5 axes", "none", "rgba", "grey", "nan", "inf"],
)
def test_unsound_frames_are_refused(images: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_frames(images, "the driver")
