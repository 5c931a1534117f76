"""What training reads is what the method's functions make, but for its rounding."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from dreamactor_core.augment import normalise
from dreamactor_core.layout import BLANK
from dreamactor_core.poses import from_body_joints
from dreamactor_core.skeleton import draw_skeleton
from training.marionette import backbone, cache
from training.marionette.backbone import load_vae
from training.marionette.world import FRAMES, HEIGHT, LEAD_IN, WIDTH, Scene, rng_for, sample_scene


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


def test_boxes_are_those_that_pose_draw_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver has no lead-in: its box is that of the frames that drive."""
    for name, share in (("_NORMALISED", 1.0), ("_OTHER_BONES", 0.0), ("_HIDDEN_LIMBS", 0.0)):
        monkeypatch.setattr(cache, name, share)
    monkeypatch.setattr(cache, "scale_bones", lambda poses, rng: poses)
    for index in range(6):
        scene = sample_scene(rng_for("validation", 8, index), "human")
        drawn = cache.skeleton_of(scene, np.random.default_rng(0))
        driver = from_body_joints(scene.keypoints()[LEAD_IN:], HEIGHT, WIDTH)
        # what Pose Draw does with fit = people
        assert np.array_equal(drawn, draw_skeleton(normalise(driver, HEIGHT, WIDTH), HEIGHT, WIDTH))


def test_blank_frames_have_settled_where_panels_stop_to_encode_them() -> None:
    """A first frame and blank ones, encoded in full length, are what the cache makes of a part of them, but for less than its
    rounding (see above)."""
    vae = load_vae()
    with torch.no_grad():
        made = cache._encode_panels(vae, "validation", 0)
        clip = cache.to_pixels(cache.draw_panels("validation", 0)[0][0])
        whole = torch.full_like(clip, BLANK)
        whole[:, :, 0] = clip[:, :, 0]
        full = backbone.normalise(vae, backbone.encode(vae, whole).float())[0]
        video = backbone.normalise(vae, backbone.encode(vae, clip).float())[0]
    assert made["first_frame"][0].shape == full.shape and full.shape[1] == (FRAMES - 1) // 4 + 1
    difference = (made["first_frame"][0] - full).abs()
    assert difference[:, :4].max() < 1e-3 and difference.max() < 0.06 and difference.mean() < 0.01
    assert (made["video"][0] - video).abs().max() < 1e-3
    assert len(made["text"]) == len(made["video"]) == cache.CHARACTERS + 1


def _die(kind: str, split: str, device: str, job: tuple[Path, range]) -> NoReturn:
    """Ends the process without a word, as the system does for lack of memory."""
    os._exit(9)


def test_a_process_that_is_ended_from_outside_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_write_shard", _die)
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 2)
    with pytest.raises(RuntimeError, match=r"ended from outside, .*; 0 of 2 shards are there: run the same command again"):
        cache.build("pose", tmp_path, 2 * cache.SHARD, "train")


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
        own = plain(scene, HEIGHT, WIDTH)[LEAD_IN:]
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
