"""What training reads is what the method's functions make, but for its rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.marionette import cache
from training.marionette.backbone import load_vae


@pytest.mark.parametrize("kind", ["pose", "rgb"])
def test_shards_hold_the_composites_rounded_to_half_precision(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SHARD", 1)
    cache.build(kind, tmp_path, 1, "validation")
    tensors, texts = cache.load(tmp_path, kind, "validation")
    with torch.no_grad():
        exact = cache._encode_composite(load_vae(), kind, "validation", 0)
    assert texts == [exact["text"]]
    for key in ("condition", "target"):
        difference = (tensors[key][0].float() - exact[key]).abs()
        # latents have a deviation of about 1; the encoder ran in bfloat16
        assert difference.max() < 0.06 and difference.mean() < 0.01, (key, difference.max(), difference.mean())


def test_a_second_call_goes_on_where_the_first_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SHARD", 1)
    cache.build("pose", tmp_path, 1, "train")
    first = tmp_path / "pose_train" / "00000.safetensors"
    written = first.stat().st_mtime_ns
    cache.build("pose", tmp_path, 3, "train")  # two that are missing: in two processes
    assert first.stat().st_mtime_ns == written
    one, two, three = cache.load(tmp_path, "pose", "train")[0]["target"]
    assert not torch.equal(one, two) and not torch.equal(two, three)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        alone = cache._encode_composite(load_vae(), "pose", "train", 2)["target"].half()
    assert (three - alone).abs().max() < 0.06  # another number of threads rounds otherwise
