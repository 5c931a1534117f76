"""What the tests of training share lies beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from diffusers.models.transformers import transformer_wan

sys.path.append(str(Path(__file__).parent))  # `drawn_clips`, `toy_backbones`


_ATTENTION = transformer_wan.dispatch_attention_fn


@pytest.fixture(scope="module", autouse=True)
def attention_of_diffusers() -> None:
    """The small backbone changes it for the whole process; the next file's networks are not to be measured with that."""
    transformer_wan.dispatch_attention_fn = _ATTENTION
