"""The small backbone's text encoder as a CLIP object, so that the stock CLIP Text Encode node works on it."""

from __future__ import annotations

from typing import Any

import comfy.sd
import comfy.utils
import torch

from ..dreamactor_core.words import MAX_WORDS, WordTable, word_ids


class _Tokenizer:
    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None) -> None:
        del embedding_directory, tokenizer_data  # a table of words has neither

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list]:
        ids = word_ids(text)
        return {"words": [[(i, 1.0, n) if return_word_ids else (i, 1.0) for n, i in enumerate(ids)]]}

    def untokenize(self, token_weight_pair: list) -> list:
        return [(pair, str(pair[0])) for pair in token_weight_pair]

    def state_dict(self) -> dict:
        return {}


class _Encoder(torch.nn.Module):
    """The interface that comfy.sd.CLIP expects of a text encoder, over a table of word vectors."""

    def __init__(self, device: Any = None, dtype: torch.dtype | None = None, model_options: dict | None = None) -> None:
        super().__init__()
        del dtype, model_options
        self.table = WordTable().to(device)
        self.dtypes = {torch.float32}

    def set_clip_options(self, options: dict) -> None:
        """Layers and devices cannot be chosen: there is one layer."""

    def reset_clip_options(self) -> None:
        """See set_clip_options."""

    def encode_token_weights(self, tokens: dict[str, list]) -> tuple[torch.Tensor, None]:
        vectors = []
        for section in tokens["words"]:
            ids = torch.tensor([pair[0] for pair in section], device=self.table.vectors.device)
            weights = torch.tensor([pair[1] for pair in section], device=self.table.vectors.device)
            vectors.append(self.table(ids) * weights[:, None])
        return torch.stack(vectors), None

    def load_sd(self, state: dict[str, torch.Tensor]) -> Any:
        return self.table.load_state_dict(state, strict=True)


class _Target:
    params: dict = {}  # noqa: RUF012 - comfy.sd.CLIP copies it
    clip = _Encoder
    tokenizer = _Tokenizer


def load_word_clip(path: str) -> comfy.sd.CLIP:
    """CLIP of the small backbone: prompts of up to MAX_WORDS words become float32 (1, MAX_WORDS, 32)."""
    state = comfy.utils.load_torch_file(path, safe_load=True)
    clip = comfy.sd.CLIP(_Target, parameters=sum(v.numel() for v in state.values()), disable_dynamic=True)
    clip.load_sd({k: v.float() for k, v in state.items()})
    return clip


__all__ = ["MAX_WORDS", "load_word_clip"]
