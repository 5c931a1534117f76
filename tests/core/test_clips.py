"""Clips: times, lengths and sizes. The answers are computed by other means: whole-number arithmetic and geometry."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from dreamactor_core.clips import (
    TIME_SLACK,
    ClipSpec,
    Fit,
    add_lead_in,
    check_fps,
    check_size,
    fit_frames,
    resample_by_timestamp,
    resample_rate,
    trim_lead_in,
)
from dreamactor_core.layout import BLANK

RATES = [(30, 16), (12, 24), (24, 16), (25, 16), (60, 16), (8, 24), (30, 12), (15, 16), (50, 24), (240, 1)]


@pytest.mark.parametrize("count", [1, 2, 7, 30, 121])
@pytest.mark.parametrize(("source", "wanted"), RATES)
def test_constant_rates_follow_exact_arithmetic(count: int, source: int, wanted: int) -> None:
    picks = resample_rate(count, source, wanted)
    assert len(picks) == math.ceil(Fraction(count * wanted, source))
    assert picks.tolist() == [k * source // wanted for k in range(len(picks))]
    assert picks.dtype == np.int64


@pytest.mark.parametrize("fps", [1, 12, 16, 23.976, 24000 / 1001, 29.97, 30, 59.94, 240])
@pytest.mark.parametrize("count", [1, 3, 66, 1000])
def test_the_same_rate_changes_nothing(fps: float, count: int) -> None:
    assert np.array_equal(resample_rate(count, fps, fps), np.arange(count))


@pytest.mark.parametrize("fps", [12, 16, 24, 24000 / 1001, 25, 30, 60])
@pytest.mark.parametrize("rounding", [math.floor, round, math.ceil])
def test_times_in_whole_milliseconds_change_nothing(fps: float, rounding: Callable[[float], int]) -> None:
    """Matroska and WebM store these."""
    times = [rounding(1000 * k / fps) / 1000 for k in range(200)]
    assert np.array_equal(resample_by_timestamp(times, times[-1] + 1 / fps, fps), np.arange(200))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fps", [8, 16, 24, 30])
def test_variable_rates_keep_their_speed(seed: int, fps: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.uniform(0, 5) + np.cumsum(rng.choice([0.01, 0.02, 0.04, 0.1, 0.5], 80))
    end = float(times[-1] + rng.uniform(0.01, 0.3))
    picks = resample_by_timestamp(times, end, fps)
    assert len(picks) / fps == pytest.approx(end - times[0], abs=1 / fps + TIME_SLACK)
    until = np.append(times[1:], np.inf)
    for k, pick in enumerate(picks):
        now = times[0] + k / fps
        assert times[pick] - TIME_SLACK <= now < until[pick], f"frame {pick} is not on screen at {now:.3f} s"


@pytest.mark.parametrize("offset", [-3.0, 0.25, 1000.0])
def test_only_time_since_the_first_frame_matters(offset: float) -> None:
    times = np.cumsum([0.0, 0.03, 0.05, 0.21, 0.04, 0.04, 0.3])
    expected = resample_by_timestamp(times, 0.8, 16)
    assert np.array_equal(resample_by_timestamp(times + offset, 0.8 + offset, 16), expected)


def test_a_long_still_is_repeated_and_a_burst_is_skipped() -> None:
    times = [0.0, 1.0, 1.01, 1.02, 1.03, 2.0]
    assert resample_by_timestamp(times, 3.0, 2).tolist() == [0, 0, 1, 4, 5, 5]


def test_a_single_frame_without_duration_is_one_frame() -> None:
    assert resample_by_timestamp([4.2], 4.2, 16).tolist() == [0]


@pytest.mark.parametrize("times", [[0.0, 0.2, 0.1], [0.0, math.nan, 0.2]])
def test_broken_timestamps_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="must not decrease"):
        resample_by_timestamp(times, 1.0, 16)


def test_zero_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="zero frames"):
        resample_by_timestamp([], 1.0, 16)
    with pytest.raises(ValueError, match="zero frames"):
        resample_rate(0, 30, 16)


@pytest.mark.parametrize("fps", [0, -1, 1e-4, 240.5, 1e9, math.nan, math.inf])
def test_impossible_rates_are_refused_everywhere(fps: float) -> None:
    for call in (
        lambda: check_fps(fps),
        lambda: resample_by_timestamp([0.0], 1.0, fps),
        lambda: ClipSpec(5, 0, fps),
        lambda: ClipSpec.from_seconds(5, 0.0, fps),
    ):
        with pytest.raises(ValueError, match=r"expected 0\.1 to 240 frames per second"):
            call()
    with pytest.raises(ValueError, match="the driver's fps"):
        resample_rate(3, fps, 16)


@pytest.mark.parametrize("fps", [1, 12.5, 240])
def test_possible_rates_pass(fps: float) -> None:
    assert check_fps(fps) == fps


@pytest.mark.parametrize(
    ("frames", "lead_in", "text"),
    [
        (1, 0, "length is 1 frame, expected a video of at least 5"),
        (24, 0, "got 24 frames, expected 4n+1; the nearest are 21 and 25"),
        (25, -1, "the lead-in is -1 frames, expected 0 or more"),
        (25, 25, "the lead-in of 25 frames (1.56 s) leaves nothing of a clip of 25 frames (1.56 s)"),
        (25, 30, "leaves nothing of a clip"),
    ],
)
def test_impossible_clips_are_refused(frames: int, lead_in: int, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        ClipSpec(frames, lead_in, 16)


@pytest.mark.parametrize("lead_in", [-0.1, math.nan, math.inf])
def test_impossible_lead_ins_in_seconds_are_refused(lead_in: float) -> None:
    with pytest.raises(ValueError, match="expected 0 or more seconds"):
        ClipSpec.from_seconds(81, lead_in, 16)


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [(1, 16, 16), (1, 24, 24), (0, 16, 0), (8 / 12, 12, 8), (0.666667, 12, 8), (0.5, 25, 12)],
)
def test_seconds_become_whole_frames(seconds: float, fps: float, frames: int) -> None:
    spec = ClipSpec.from_seconds(81, seconds, fps)
    assert (spec.lead_in, spec.driven) == (frames, 81 - frames)


@pytest.mark.parametrize("lead_in", [0, 1, 4, 7, 16, 17, 20, 24])
@pytest.mark.parametrize("available", [0, 1, 2, 3, 4, 5, 9, 20, 63, 64, 66])
def test_longest_clip_fits_and_the_next_does_not(lead_in: int, available: int) -> None:
    spec = ClipSpec(121, lead_in, 16)
    works = [n for n in range(5, 121, 4) if n > lead_in and n - lead_in <= available]
    assert spec.longest_for(available) == max(works, default=0)


@pytest.mark.parametrize("lead_in", [0, 1, 4, 7, 16, 17, 24])
@pytest.mark.parametrize("available", [1, 2, 3, 5, 20, 64])
def test_too_short_a_driver_names_a_length_that_works(lead_in: int, available: int) -> None:
    driving = torch.rand(1, 3, available, 2, 2) + 0.5
    with pytest.raises(
        ValueError, match=rf"got {available} driving frames? at 16 fps, expected {121 - lead_in} "
    ) as caught:
        add_lead_in(driving, ClipSpec(121, lead_in, 16))
    message = str(caught.value)
    named = re.search(r"set length to at most (\d+)", message)
    if named:
        length = int(named[1])
        assert add_lead_in(driving, ClipSpec(length, lead_in, 16)).shape[2] == length
    else:
        for length in range(5, 121, 4):  # there is none
            with pytest.raises(ValueError, match=r"leaves nothing|driving frame"):
                add_lead_in(driving, ClipSpec(length, lead_in, 16))
    assert message.count("use a longer driver") == 1


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("extra", [0, 1, 10])
@pytest.mark.parametrize(("frames", "lead_in"), [(5, 0), (9, 4), (25, 8), (25, 24)])
def test_trimming_undoes_the_lead_in(batch: int, extra: int, frames: int, lead_in: int) -> None:
    spec = ClipSpec(frames, lead_in, 12)
    driving = torch.rand(batch, 3, spec.driven + extra, 4, 6) + 0.5
    full = add_lead_in(driving, spec)
    assert full.shape == (batch, 3, frames, 4, 6)
    assert (full[:, :, :lead_in] == BLANK).all()
    assert torch.equal(trim_lead_in(full, spec), driving[:, :, : spec.driven])


SIZES = [
    ((48, 64), (96, 64)),
    ((96, 64), (48, 64)),
    ((37, 53), (31, 64)),
    ((53, 37), (64, 31)),
    ((100, 100), (33, 47)),
    ((30, 120), (64, 64)),
    ((71, 20), (97, 55)),
    ((64, 64), (64, 64)),
    ((200, 150), (63, 64)),
]
FITS: list[Fit] = ["letterbox", "crop"]


def disc(size: tuple[int, int], radius: float) -> torch.Tensor:
    """A white disc in the middle of a grey picture (1, 3, H, W), its edge antialiased."""
    y, x = (torch.arange(n) - (n - 1) / 2 for n in size)
    distance = torch.hypot(y[:, None], x[None])
    return ((radius - distance + 0.5).clamp(0, 1) * 1.5 - 0.5).expand(1, 3, *size)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_sizes_are_exact(source: tuple[int, int], target: tuple[int, int], fit: Fit) -> None:
    fitted = fit_frames(torch.rand(2, 3, *source), *target, fit)
    assert fitted.shape == (2, 3, *target)
    assert fitted.min() >= -1
    assert fitted.max() <= 1


@pytest.mark.parametrize("fit", FITS)
def test_every_small_size_is_exact(fit: Fit) -> None:
    for height in range(1, 12):
        for width in range(1, 12):
            assert fit_frames(torch.rand(1, 3, 5, 7), height, width, fit).shape == (1, 3, height, width)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_a_circle_stays_a_centred_circle(source: tuple[int, int], target: tuple[int, int], fit: Fit) -> None:
    ratios = [t / s for s, t in zip(source, target, strict=True)]
    scale = min(ratios) if fit == "letterbox" else max(ratios)
    radius = 0.4 * min(*source, *(t / scale for t in target))
    fitted = fit_frames(disc(source, radius), *target, fit, pad=-0.5)[0, 0]
    weight = (fitted + 0.5).clamp(min=0) / 1.5
    y, x = (torch.arange(n) + 0.5 for n in target)
    mean_y, mean_x = (weight * y[:, None]).sum() / weight.sum(), (weight * x).sum() / weight.sum()
    assert float(mean_y) == pytest.approx(target[0] / 2, abs=0.6)
    assert float(mean_x) == pytest.approx(target[1] / 2, abs=0.6)
    spread_y = (weight * (y[:, None] - mean_y) ** 2).sum() / weight.sum()
    spread_x = (weight * (x - mean_x) ** 2).sum() / weight.sum()
    # a size is a whole number of pixels, so the two scales differ by up to half a pixel's worth
    slack = 0.5 / (scale * min(source)) + 0.01
    assert float((spread_x / spread_y).sqrt()) == pytest.approx(1, abs=slack)
    assert float(weight.sum()) == pytest.approx(math.pi * (radius * scale) ** 2, rel=3 * slack)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("pad", [-1.0, 0.0])
def test_letterbox_pads_evenly_and_crop_never(source: tuple[int, int], target: tuple[int, int], pad: float) -> None:
    white = torch.ones(1, 3, *source)
    assert torch.allclose(fit_frames(white, *target, "crop", pad), torch.ones(()), atol=1e-5)
    boxed = fit_frames(white, *target, "letterbox", pad)
    boxed[boxed > 1 - 1e-5] = 1
    assert ((boxed == 1) | (boxed == pad)).all()
    for axis in (2, 3):
        shown = (boxed == 1).any(dim=5 - axis)[0, 0].nonzero().flatten()
        before, after = int(shown[0]), boxed.shape[axis] - 1 - int(shown[-1])
        assert abs(before - after) <= 1
    scale = min(t / s for s, t in zip(source, target, strict=True))
    for axis, (s, t) in zip((2, 3), zip(source, target, strict=True), strict=True):
        assert int((boxed == 1).any(dim=5 - axis)[0, 0].sum()) == pytest.approx(min(t, s * scale), abs=0.5)


@pytest.mark.parametrize("fit", FITS)
def test_the_same_size_is_left_alone(fit: Fit) -> None:
    frames = torch.rand(2, 3, 31, 47)
    assert torch.equal(fit_frames(frames, 31, 47, fit), frames)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_every_part_of_the_picture_moves_alike(source: tuple[int, int], target: tuple[int, int], fit: Fit) -> None:
    """A ramp stays a straight ramp: no part of the picture is moved against the others."""
    for axis in (2, 3):
        length = source[axis - 2]
        ramp = torch.linspace(-0.9, 0.9, length).view(1, 1, *((-1, 1) if axis == 2 else (1, -1))).expand(1, 3, *source)
        fitted = fit_frames(ramp, *target, fit, pad=-1.0).transpose(axis, 3)[0, 0]
        line = fitted[fitted.shape[0] // 2]
        inside = line[(line > -0.7) & (line < 0.7)]
        step = inside.diff()
        per_pixel = 1.8 / (length - 1)
        assert len(step) > 3
        assert float((step - step.mean()).abs().max()) < 0.1 * per_pixel


def test_padding_without_scaling_copies_pixels() -> None:
    frames = torch.rand(1, 3, 8, 5) * 2 - 1
    boxed = fit_frames(frames, 8, 9, "letterbox")
    assert torch.allclose(boxed[..., 2:7], frames, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (480, 832), (96, 64)])
def test_allowed_sizes_pass(height: int, width: int) -> None:
    check_size(height, width)


@pytest.mark.parametrize(
    ("height", "width", "text"),
    [
        (480, 833, "width is 833, the nearest are 832 and 848"),
        (470, 832, "height is 470, the nearest are 464 and 480"),
        (0, 16, "height is 0, the nearest are 16 and 32"),
        (16, -16, "width is -16, the nearest are 16 and 32"),
    ],
)
def test_other_sizes_name_the_nearest(height: int, width: int, text: str) -> None:
    with pytest.raises(ValueError, match=f"must be divisible by 16: {text}$"):
        check_size(height, width)


def test_both_wrong_sides_are_named() -> None:
    with pytest.raises(ValueError, match=r"width is 100, .*; height is 50, "):
        check_size(50, 100, 32)
