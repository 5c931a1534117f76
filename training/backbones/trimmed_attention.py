"""Attention of HunyuanVideo-1.5 without a mask: padding is left out instead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb


class TrimmedAttention:
    """An attention processor of diffusers for the joint blocks; S tokens, of which the last ones of a sample are padding.

    diffusers' own makes a mask of S x S, 9 GB for a clip of 97k tokens, and a mask keeps flash attention from being used. The
    network puts padding behind everything else, so that leaving it out is the same for every token that matters.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Video tokens (B, N, D) and text tokens (B, L, D) with the text's mask (B, L), to the same two; 0 at padding."""
        video = [layer(hidden_states).unflatten(2, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v)]
        text = [
            layer(encoder_hidden_states).unflatten(2, (attn.heads, -1))
            for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        ]
        for k, (norm, added) in enumerate(((attn.norm_q, attn.norm_added_q), (attn.norm_k, attn.norm_added_k))):
            video[k] = apply_rotary_emb(norm(video[k]), image_rotary_emb, sequence_dim=1)
            text[k] = added(text[k])
        joined = [torch.cat(pair, 1).transpose(1, 2) for pair in zip(video, text, strict=True)]
        total, tokens = joined[0].shape[2], hidden_states.shape[1]
        rows = []
        for row, count in enumerate((tokens + attention_mask.sum(1)).tolist()):
            out = F.scaled_dot_product_attention(*(x[row : row + 1, :, : int(count)] for x in joined))
            rows.append(F.pad(out, (0, 0, 0, total - int(count))))
        out = torch.cat(rows).transpose(1, 2).flatten(2, 3).to(hidden_states.dtype)
        shown = attn.to_out[1](attn.to_out[0](out[:, :tokens]))
        return shown, attn.to_add_out(out[:, tokens:])
