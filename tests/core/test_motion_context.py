"""Motion contexts: who sees whom, and where the driver's tokens lie."""

from __future__ import annotations

import pytest
import torch

from dreamactor_core.clips import ClipSpec
from dreamactor_core.conditions import build_condition, encode_still, shrink
from dreamactor_core.contract import Contract, ContractError
from dreamactor_core.layout import BLANK, AloneLayout, SpatialLayout, get_layout
from dreamactor_core.motion_context import CONTEXTS, JOINT, attend_with_motion, get_context, token_places, window

CACHED = [context for context in CONTEXTS.values() if context.cached]
FRAMES, OWN, DIM = 6, 4, 5


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
    scores = q @ k.transpose(1, 2)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


def tokens(batch: int, count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, count, DIM, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("near", [None, 0, 1, 2, 5])
def test_a_frame_sees_the_result_and_its_neighbourhood_of_the_driver(near: int | None, each: int, batch: int, grad: bool) -> None:
    q, k, v = tokens(batch, FRAMES * OWN, 1)
    _, motion_k, motion_v = tokens(1, FRAMES * each, 2)
    allowed = torch.ones(FRAMES * OWN, FRAMES * (OWN + each), dtype=torch.bool)
    for frame in range(FRAMES):
        first, count = (0, FRAMES) if near is None else window(frame, FRAMES, near)
        for other in range(FRAMES):
            if not first <= other < first + count:
                start = FRAMES * OWN + other * each
                allowed[frame * OWN : (frame + 1) * OWN, start : start + each] = False
    keys = [torch.cat([x, m.expand(batch, -1, -1)], 1) for x, m in ((k, motion_k), (v, motion_v))]
    expected = attend(q, *keys, allowed)
    for x in (q, k, v, motion_k, motion_v):
        x.requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        got = attend_with_motion(attend, q, k, v, (motion_k, motion_v), FRAMES, near)
    torch.testing.assert_close(got, expected)
    if grad:
        got.square().sum().backward()
        seen = motion_k.grad.abs().sum((0, 2)) > 0
        assert seen.all(), "every one of the driver's frames is seen by some frame"


def test_training_does_not_keep_the_keys_once_for_each_frame() -> None:
    q, k, v = (x.requires_grad_() for x in tokens(2, FRAMES * OWN, 1))
    motion = tuple(x.requires_grad_() for x in tokens(2, FRAMES * OWN, 2)[:2])
    kept: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        attend_with_motion(attend, q, k, v, motion, FRAMES, 1)
    assert sum(kept.values()) <= sum(x.nbytes for x in (q, k, v, *motion))


def test_a_neighbourhood_is_as_large_at_the_ends() -> None:
    assert [window(frame, 5, 1) for frame in range(5)] == [(0, 3), (0, 3), (1, 3), (2, 3), (2, 3)]
    assert window(1, 2, 1) == (0, 2)


def test_the_driver_stands_beside_and_each_token_where_the_first_lies_that_it_covers() -> None:
    assert token_places(CONTEXTS["cached"], 4) == (0, 4, 1)
    top, left, step = token_places(CONTEXTS["cached_half"], 4)
    assert [left + k * step for k in range(2)] == [4, 6]
    assert [top + k * step for k in range(3)] == [0, 2, 4]


def test_names() -> None:
    assert get_context("joint") is JOINT
    assert not JOINT.cached and all(name == context.name for name, context in CONTEXTS.items())
    with pytest.raises(ValueError, match="unknown motion context 'fast'; known: joint, cached,"):
        get_context("fast")
    with pytest.raises(ValueError, match="motion context cached goes with the spatial layout, got 'temporal'"):
        get_layout("temporal", "cached")
    assert get_layout("spatial", "cached_half") == AloneLayout(CONTEXTS["cached_half"])
    assert get_layout("spatial") == SpatialLayout()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layout": "temporal"}, "layout temporal on Marionette"),
        ({"backbone": "hunyuanvideo-1.5-i2v"}, "expected the spatial layout on a Wan network"),
    ],
)
def test_impossible_contracts(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        Contract(**{"variant": "pose", "backbone": "marionette", "motion_context": "cached"} | changes)


def encode(pixels: torch.Tensor) -> torch.Tensor:
    """As causal as a video VAE: each latent frame is a running mean that forgets nine tenths, over squares of 8 pixels."""
    groups = [pixels[:, :, :1], *pixels[:, :, 1:].split(4, dim=2)]
    state, made = torch.zeros(()), []
    for group in groups:
        state = 0.1 * state + 0.9 * torch.nn.functional.avg_pool3d(group.mean(2, keepdim=True), (1, 8, 8))
        made.append(state)
    return torch.cat(made, 2)


@pytest.mark.parametrize("context", CACHED, ids=lambda context: context.name)
def test_what_a_cached_context_is_given(context: object) -> None:
    spec = ClipSpec(17, 6, 12)
    generator = torch.Generator().manual_seed(0)
    reference, driving = torch.rand(1, 3, 32, 48, generator=generator), torch.rand(1, 3, 13, 32, 48, generator=generator)
    layout = AloneLayout(context)
    made = build_condition(layout, reference, driving, spec, encode, torch.float32)
    assert made.latents.shape == made.known.expand(-1, 3, -1, -1, -1).shape == (1, 3, 5, 4, 6)
    assert made.known[:, :, 0].all() and not made.known[:, :, 1:].any() and made.generate.all()
    assert made.composite.shape == (1, 3, 17, 32, 96)
    assert torch.equal(made.composite, SpatialLayout().composite(reference, made.composite[..., 48:]))
    driver = made.composite[..., 48:]
    assert torch.equal(driver[:, :, 6:], driving[:, :, :11]) and (driver[:, :, :6] == BLANK).all()
    assert made.motion.shape == (1, 3, 5, 4 // context.scale, 6 // context.scale)
    torch.testing.assert_close(made.motion, encode(shrink(driver, context.scale)))
    torch.testing.assert_close(made.latents, encode(layout.composite(reference, driver)), atol=1e-4, rtol=0)
    assert torch.equal(layout.crop(made.latents), made.latents) and layout.join(driver, driving) is driver


def test_blank_frames_are_encoded_until_their_latents_settle() -> None:
    reference, seen = torch.rand(1, 3, 16, 16), []

    def slow(pixels: torch.Tensor) -> torch.Tensor:
        """Forgets but half with each latent frame."""
        seen.append((len(pixels), pixels.shape[2]))
        first = torch.nn.functional.avg_pool2d(pixels[:, :, 0], 8)
        return torch.stack([first * 0.5**k for k in range((pixels.shape[2] - 1) // 4 + 1)], 2)

    got = encode_still(slow, reference, 401, torch.float32)
    assert seen == [(1, 29), (1, 57)], "12 latent frames until all that is to come is less than 5e-4"
    torch.testing.assert_close(got, slow(torch.zeros(1, 3, 401, 16, 16).index_copy(2, torch.tensor([0]), reference[:, :, None])),
                               atol=2e-4, rtol=0)  # fmt: skip
    seen.clear()
    assert encode_still(slow, reference, 41, torch.float32).shape[2] == 11
    assert seen == [(1, 29), (1, 41)], "a short clip is encoded whole"
    seen.clear()
    both = encode_still(slow, torch.cat([reference * 1e-3, reference]), 401, torch.float32)
    assert seen == [(2, 29), (1, 57)], "a picture that has settled is not encoded again because of another"
    assert torch.equal(both[1:], got) and torch.equal(both[:1], encode_still(slow, reference * 1e-3, 401, torch.float32))


def test_what_still_moves_is_not_taken_for_rounding() -> None:
    def slow(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.shape[2])
        return torch.stack([torch.ones(1, 3, 2, 2) * (1 + 0.5**k) for k in range((pixels.shape[2] - 1) // 4 + 1)], 2)

    reference, seen = torch.rand(1, 3, 16, 16), []
    assert (encode_still(slow, reference, 401, torch.float32) - slow(torch.zeros(1, 3, 401, 16, 16))).abs().max() < 5e-4
    assert seen == [29, 57, 401]
    seen.clear()
    encode_still(slow, reference, 401, torch.bfloat16)
    assert seen == [29], "no nearer in half precision"


def test_sizes_that_half_does_not_fit() -> None:
    with pytest.raises(ValueError, match="the driver is 50x33, expected both to be multiples of 2"):
        shrink(torch.zeros(1, 3, 5, 33, 50), 2)
