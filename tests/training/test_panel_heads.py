"""The placed heads look at the same place and time of the neighbouring panel, whatever is shown there."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers import transformer_wan

from training.marionette import backbone
from training.marionette.attention import plain_attention
from training.marionette.panel_heads import place_panel_heads

FRAMES, ROWS, PANEL = 3, 4, 4
CONFIG = backbone.MODEL_CONFIG | {"num_layers": 4, "ffn_dim": 64, "freq_dim": 16}


@pytest.fixture
def attention(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Self-attention weights of the blocks, (heads, frames, rows, columns, frames, rows, columns) each, of the first sample."""
    seen: list[torch.Tensor] = []

    def record(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: object) -> torch.Tensor:
        if query.shape[1] == key.shape[1]:
            scores = torch.einsum("qhc,khc->hqk", query[0], key[0]) / query.shape[-1] ** 0.5
            grid = (FRAMES, ROWS, 2 * PANEL)
            seen.append(scores.softmax(-1).view(-1, *grid, *grid))
        return plain_attention(query, key, value, **options)

    monkeypatch.setattr(transformer_wan, "dispatch_attention_fn", record)
    return seen


def inputs(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, CONFIG["in_channels"], FRAMES, 2 * ROWS, 4 * PANEL, generator=generator)
    text = torch.randn(1, 6, CONFIG["text_dim"], generator=generator)
    return {"hidden_states": latents, "timestep": torch.tensor([700.0]), "encoder_hidden_states": text}


@torch.no_grad()
def test_the_heads_of_a_network_look_across(attention: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = WanTransformer3DModel(**CONFIG).eval()
    place_panel_heads(model, PANEL)
    for seed in range(3):
        attention.clear()
        model(**inputs(seed))
        assert len(attention) == CONFIG["num_layers"]
        for block, weights in enumerate(attention):
            for head, columns, step in ((2, range(PANEL), PANEL), (3, range(PANEL, 2 * PANEL), -PANEL)):
                where = [(t, y, x) for t in range(FRAMES) for y in range(ROWS) for x in columns]
                met = torch.stack([weights[head, t, y, x, t, y, x + step] for t, y, x in where])
                # how sharp a head is varies with what the other heads, with which it is normalised, make of a token
                assert float(met.mean()) > 0.5 if block == 1 else float(met.mean()) < 0.05


@torch.no_grad()
def test_both_heads_are_as_sharp_as_each_other() -> None:
    torch.manual_seed(0)
    model = WanTransformer3DModel(**CONFIG).eval()
    place_panel_heads(model, PANEL)
    for linear in (model.blocks[1].attn1.to_q, model.blocks[1].attn1.to_k):
        right, left = linear.bias.view(CONFIG["num_attention_heads"], -1)[-2:].norm(dim=1)
        torch.testing.assert_close(right, left)


@torch.no_grad()
def test_they_change_nothing_at_first_but_their_own_part() -> None:
    torch.manual_seed(0)
    model = WanTransformer3DModel(**CONFIG).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    place_panel_heads(model, PANEL)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {
        f"blocks.1.attn1.{name}" for name in ("to_q.weight", "to_q.bias", "to_k.weight", "to_k.bias", "norm_q.weight",
                                              "norm_k.weight", "to_out.0.weight")
    }  # fmt: skip
    half = CONFIG["num_attention_heads"] * CONFIG["attention_head_dim"] // 2
    for name in ("to_q", "to_k"):
        key = f"blocks.1.attn1.{name}.weight"
        assert torch.equal(model.state_dict()[key][:half], before[key][:half])
    assert not model.blocks[1].attn1.to_out[0].weight[:, half:].any()
