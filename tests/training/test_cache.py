"""What training reads is what the method's functions make, but for its rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.marionette import cache
from training.marionette.backbone import load_vae
from training.marionette.world import HEIGHT, WIDTH, Scene, rng_for, sample_scene


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


def test_skeletons_get_other_bones_and_lose_limbs_but_keep_the_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(cache, "draw_skeleton", lambda poses, *size: drawn.append(poses) or np.zeros(1))
    clips = 80
    bodies = 0
    plain = Scene.keypoints
    for index in range(clips):
        rng = rng_for("validation", 9, index)
        scene = sample_scene(rng, "cartoon")
        cache.skeleton_of(scene, rng)
        own = plain(scene, HEIGHT, WIDTH)
        shown = np.stack([people[0].body for people in drawn[-1].frames])
        bodies += not np.allclose(shown[shown[..., 2] > 0], own[shown[..., 2] > 0], atol=1e-3)
        hidden = {i for i in range(18) if not shown[:, i, 2].any()}
        assert hidden in [set(), *map(set, cache.LIMBS.values())]
        if not hidden & {6, 7}:  # bones have other lengths, but the same directions
            for a, b in ((5, 6), (6, 7)):
                turned = [np.arctan2(*(p[:, b, :2] - p[:, a, :2]).T) for p in (own, shown)]
                assert np.abs(np.sin(turned[0] - turned[1])).max() < 0.01
    # other bodies on half of the clips, the paper's factors on 30% of the rest, and of what is left a third normalised
    assert 0.65 < bodies / clips < 0.9
    assert any(not people.frames[0][0].body[3, 2] for people in drawn), "no clip lost its arms"
