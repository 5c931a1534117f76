"""Eq. 2: the composite, its masks and the crop agree with each other, in pixels and in latents."""

from __future__ import annotations

import pytest
import torch

from dreamactor_core.layout import (
    BLANK,
    LAYOUTS,
    Layout,
    SpatialLayout,
    TemporalLayout,
    get_layout,
    latent_frames,
)

SHAPES = [(1, 3, 5, 4, 6), (2, 3, 9, 6, 4), (3, 1, 1, 2, 2), (1, 16, 13, 3, 5)]
"""(B, C, T, H, W)"""

STRIDE = 8


def videos(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A reference and a driver without any blank pixel."""
    generator = torch.Generator().manual_seed(seed)
    driving = torch.rand(shape, generator=generator) * 0.9 + 0.1
    reference = -torch.rand((*shape[:2], *shape[3:]), generator=generator) * 0.9 - 0.1
    return reference, driving


def pixel_mask(layout: Layout, frames: int, height: int, width: int) -> torch.Tensor:
    """M in pixels, written down from the definition: 1 on frame 0 and on the driver."""
    first, rest = torch.ones(1, height, width), torch.zeros(frames - 1, height, width)
    generated = torch.cat([first, rest])
    if layout.name == "spatial":
        return torch.cat([generated, torch.ones(frames, height, width)], 2)[None, None]
    return torch.cat([generated, torch.ones(frames + 3, height, width)], 0)[None, None]


@pytest.mark.parametrize("shape", SHAPES)
def test_spatial_composite_is_eq_2(shape: tuple[int, ...]) -> None:
    reference, driving = videos(shape)
    composite = SpatialLayout().composite(reference, driving)
    width = shape[-1]
    assert composite.shape == (*shape[:-1], 2 * width)
    for t in range(shape[2]):
        left = reference if t == 0 else torch.zeros_like(reference)
        assert torch.equal(composite[:, :, t], torch.cat([left, driving[:, :, t]], -1))


@pytest.mark.parametrize("shape", SHAPES)
def test_temporal_composite_repeats_the_drivers_first_frame(shape: tuple[int, ...]) -> None:
    reference, driving = videos(shape)
    composite = TemporalLayout().composite(reference, driving)
    frames = shape[2]
    expected = [reference] + [torch.zeros_like(reference)] * (frames - 1)
    expected += [driving[:, :, 0]] * 3 + [driving[:, :, t] for t in range(frames)]
    assert torch.equal(composite, torch.stack(expected, 2))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_composite_has_a_video_length(layout: Layout, shape: tuple[int, ...]) -> None:
    composite = layout.composite(*videos(shape))
    frames, height, width = shape[2:]
    size = (2 * frames + 3, height, width) if layout.name == "temporal" else (frames, height, 2 * width)
    assert composite.shape[2:] == size
    assert latent_frames(composite.shape[2]) == latent_frames(shape[2]) * (2 if layout.name == "temporal" else 1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_mask_calls_unknown_is_blank_and_nothing_else(layout: Layout, shape: tuple[int, ...]) -> None:
    composite = layout.composite(*videos(shape))
    unknown = pixel_mask(layout, *shape[2:]).expand_as(composite) == 0
    assert torch.equal(composite == BLANK, unknown)


@pytest.mark.parametrize("shape", SHAPES)
def test_spatial_mask_is_eq_2(shape: tuple[int, ...]) -> None:
    mask = SpatialLayout().known_mask(*shape[2:])
    assert mask.dtype == torch.float32
    assert torch.equal(mask, pixel_mask(SpatialLayout(), *shape[2:]))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17, 81])
@pytest.mark.parametrize("size", [(16, 32), (24, 16)])
def test_latent_mask_is_the_subsampled_pixel_mask(layout: Layout, frames: int, size: tuple[int, int]) -> None:
    height, width = size
    pixels = pixel_mask(layout, frames, height, width)
    # a causal encoder: the first latent frame sees frame 0, latent frame i sees frames 4i-3 .. 4i
    groups = [pixels[:, :, :1]] + list(pixels[:, :, 1:].split(4, dim=2))
    assert all((group == group[:, :, :1]).all() for group in groups), "a latent frame is half known"
    subsampled = torch.cat([group[:, :, :1] for group in groups], 2)[..., ::STRIDE, ::STRIDE]
    mask = layout.known_mask(latent_frames(frames), height // STRIDE, width // STRIDE)
    assert torch.equal(mask, subsampled)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_crop_undoes_join(layout: Layout, shape: tuple[int, ...]) -> None:
    generated, driving = torch.randn(shape), torch.randn(shape)
    joined = layout.join(generated, driving)
    assert torch.equal(layout.crop(joined), generated)
    assert torch.equal(layout.crop(joined[0]), generated[0])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("size", [(1, 2, 3), (2, 4, 4), (7, 3, 5)])
def test_crop_in_latents_is_where_the_generated_mask_is_one(layout: Layout, size: tuple[int, int, int]) -> None:
    mask = layout.generated_mask(*size)
    cropped = layout.crop(mask)
    assert cropped.shape == (1, 1, *size)
    assert cropped.all()
    assert mask.sum() == cropped.numel() == mask.numel() / 2


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("size", [(1, 2, 3), (2, 4, 4), (7, 3, 5)])
def test_masks_agree_on_the_driver_and_differ_by_frame_0(layout: Layout, size: tuple[int, int, int]) -> None:
    known, generate = layout.known_mask(*size), layout.generated_mask(*size)
    assert known.shape == generate.shape
    assert ((known + generate) >= 1).all(), "neither known nor generated"
    both = layout.crop(known * generate)
    assert both[:, :, 0].all()
    assert not both[:, :, 1:].any()
    assert torch.equal(known * generate, known - (1 - generate)), "known is the driver and frame 0"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
def test_composite_leaves_its_arguments_alone(layout: Layout) -> None:
    reference, driving = videos(SHAPES[0])
    before = reference.clone(), driving.clone()
    layout.composite(reference, driving).zero_()
    assert torch.equal(reference, before[0])
    assert torch.equal(driving, before[1])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
def test_dtype_is_kept(layout: Layout) -> None:
    reference, driving = videos(SHAPES[0])
    assert layout.composite(reference.half(), driving.half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("reference", "driving"),
    [
        ((1, 3, 4, 6), (2, 3, 5, 4, 6)),
        ((1, 4, 4, 6), (1, 3, 5, 4, 6)),
        ((1, 3, 4, 6), (1, 3, 5, 6, 4)),
        ((1, 3, 4, 8), (1, 3, 5, 4, 6)),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
def test_pairs_that_differ_are_refused(layout: Layout, reference: tuple[int, ...], driving: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="differ in batch, channels or size") as caught:
        layout.composite(torch.zeros(reference), torch.zeros(driving))
    assert str(reference) in str(caught.value)
    assert str(driving) in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize(("reference", "driving"), [((3, 4, 6), (1, 3, 5, 4, 6)), ((1, 3, 4, 6), (1, 3, 4, 6))])
def test_other_numbers_of_axes_are_refused(
    layout: Layout, reference: tuple[int, ...], driving: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\) and \(B, C, T, H, W\)"):
        layout.composite(torch.zeros(reference), torch.zeros(driving))


def test_an_odd_composite_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="even width, got 7"):
        SpatialLayout().crop(torch.zeros(1, 3, 5, 4, 7))


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (9, 3), (49, 13), (81, 21), (121, 31)])
def test_latent_frames(frames: int, latents: int) -> None:
    assert latent_frames(frames) == latents


@pytest.mark.parametrize(
    ("frames", "low", "high"), [(-4, 1, 5), (0, 1, 5), (2, 1, 5), (4, 1, 5), (6, 5, 9), (80, 77, 81)]
)
def test_other_frame_counts_name_the_nearest(frames: int, low: int, high: int) -> None:
    with pytest.raises(ValueError, match=rf"got {frames} frames, expected 4n\+1; the nearest are {low} and {high}$"):
        latent_frames(frames)


def test_layouts_are_found_by_name() -> None:
    assert {name: get_layout(name).name for name in LAYOUTS} == {"spatial": "spatial", "temporal": "temporal"}
    with pytest.raises(ValueError, match="'diagonal'; known: spatial, temporal"):
        get_layout("diagonal")
