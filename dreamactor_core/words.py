"""The small backbone's text encoder: a fixed table of word vectors.

A tiny video model needs to tell "a cartoon waves" from "a bird flaps", not to read. Words are looked up by a hash, so
any prompt works and unknown words cost nothing.
"""

from __future__ import annotations

import re
import zlib

import torch

BUCKETS, DIM, MAX_WORDS = 4096, 32, 16


def word_ids(text: str) -> list[int]:
    """Row of every word in the table, cut or padded with row 0 (a zero vector) to MAX_WORDS."""
    words = re.findall(r"[\w']+", text.lower())[:MAX_WORDS]
    ids = [1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words]
    return ids + [0] * (MAX_WORDS - len(ids))


class WordTable(torch.nn.Module):
    """ids (..., n) -> vectors (..., n, DIM)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(BUCKETS, DIM))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.vectors[ids]

    @classmethod
    def random(cls, seed: int = 0) -> WordTable:
        """A new table of unit-variance vectors, row 0 zero."""
        table = cls()
        table.vectors.copy_(torch.randn(BUCKETS, DIM, generator=torch.Generator().manual_seed(seed)))
        table.vectors[0] = 0
        return table


def encode_text(table: WordTable, texts: list[str]) -> torch.Tensor:
    """Prompts to float32 (B, MAX_WORDS, DIM)."""
    return table(torch.tensor([word_ids(text) for text in texts])).float()
