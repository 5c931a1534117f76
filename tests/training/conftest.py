"""What the tests of training share lies beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from diffusers.models.transformers import transformer_wan

sys.path.append(str(Path(__file__).parent))  # `drawn_clips`, `short_runs`, `toy_backbones`

from drawn_clips import write_clips
from short_runs import trained, write_cache

_ATTENTION = transformer_wan.dispatch_attention_fn


@pytest.fixture(scope="module", autouse=True)
def attention_of_diffusers() -> None:
    """The small backbone changes it for the whole process; the next file's networks are not to be measured with that."""
    transformer_wan.dispatch_attention_fn = _ATTENTION


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips; a cache of encoded skeletons and one of keypoints, two clips of them held out."""
    folder = tmp_path_factory.mktemp("world")
    write_clips(folder / "clips", 6)
    for name, variants in (("encoded", 1), ("keypoints", 0)):
        write_cache(folder, name, variants)
    return folder


@pytest.fixture(scope="session")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    out = tmp_path_factory.mktemp("plain")
    trained(world, out)
    return out


@pytest.fixture(scope="session")
def four(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with four samples a step."""
    out = tmp_path_factory.mktemp("four")
    trained(world, out, batch=4)
    return out
