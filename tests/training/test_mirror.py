"""`cache.mirror`: each sample to train on is there a second time, with left and right exchanged in all that is read of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_clips import PLAIN, write_clips, write_run
from short_runs import FLOAT

from dreamactor_core.clips import ClipSpec
from dreamactor_core.conditions import build_condition
from dreamactor_core.layout import get_layout
from dreamactor_core.poses import PoseSequence
from training import config, manifest
from training.__main__ import main
from training.backbones.marionette import MarionetteEncoders
from training.latents import skeletons
from training.latents.encode import read_driver, read_poses, read_reference, read_target, to_pixels
from training.latents.mirror import exchanged, in_mirror
from training.latents.read import Cache
from training.latents.split import split
from training.marionette.world import LEAD_IN

SPEC = ClipSpec(25, LEAD_IN, 12.0)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("raises the left arm, then the Right one", "raises the right arm, then the Left one"),
        ("stands upright, LEFT of the brightest lamp", "stands upright, RIGHT of the brightest lamp"),
        ("右手举起，然后左脚抬起", "左手举起，然后右脚抬起"),
        ("a bird flaps", "a bird flaps"),
    ],
)
def test_texts_change_sides(text: str, other: str) -> None:
    assert exchanged(text) == other and exchanged(other) == text


def test_an_rgb_sample_is_turned_in_all_that_is_read(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", 2, pairs=True)
    sections = {"variant": "rgb", "motion_context": "cached", "backbone": FLOAT}
    cache = {"validation_share": 0.0, "workers": 1, "mirror": True}
    run = write_run(tmp_path / "run.yaml", tmp_path, **sections, cache=cache)
    assert main(["cache", str(run)]) == 0
    made = Cache(tmp_path / "cache", "train")
    assert [place.id for place in made.places] == ["c0", "c1", "c0.mirrored", "c1.mirrored"]
    sample = manifest.read(tmp_path / "clips" / "manifest.jsonl")[1]
    target, driver = (frames[:, :, ::-1] for frames in (read_target(sample), read_driver(sample, SPEC)))
    encoders = MarionetteEncoders(torch.device("cpu"), torch.float32)
    layout = get_layout("spatial", "cached")
    exact = build_condition(layout, to_pixels(target)[:, :, 0], to_pixels(driver), SPEC, encoders.encode, torch.float32)
    found = made.tensors(3)
    torch.testing.assert_close(found["condition"][0].float(), exact.latents[0], atol=4e-3, rtol=1e-3)  # half precision's own error
    torch.testing.assert_close(found["motion"][0].float(), exact.motion[0], atol=4e-3, rtol=1e-3)
    torch.testing.assert_close(found["target"].float(), encoders.encode(to_pixels(target))[0], atol=4e-3, rtol=1e-3)


def test_a_skeleton_is_turned_with_its_clip(tmp_path: Path) -> None:
    """Its right arm is in the right arm's colours again, on the other side of the picture."""
    sample = write_clips(tmp_path / "clips", 1)[0]
    turned = in_mirror(sample.model_copy(update={"caption": "waves the left arm"}))
    assert turned.caption == "waves the right arm" and turned.id == "c0.mirrored"
    assert np.array_equal(read_target(turned), read_target(sample)[:, :, ::-1])
    assert np.array_equal(read_reference(turned, read_target(turned)), read_reference(sample, read_target(sample))[:, ::-1])
    own, other = read_poses(sample), read_poses(turned)
    for (person,), (twin,) in zip(own.frames, other.frames, strict=True):
        np.testing.assert_allclose(twin.body[[2, 3, 4], 0], sample.width - person.body[[5, 6, 7], 0], atol=1e-4)
    # who has exchanged names with their own other side is drawn as the picture turned over, to a quarter of a pixel; a whole one
    # is 3.8 and more
    for people in other.frames:
        people[0].body = people[0].body[[0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]]
    drawn, flipped = (skeletons.drawn(PoseSequence(s.frames, s.height, s.width)).astype(int) for s in (other, own))
    assert np.abs(drawn - flipped[:, :, ::-1]).mean() < 2


def test_only_what_is_trained_on_is_turned(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", 5)
    run = write_run(tmp_path / "run.yaml", tmp_path, cache={"validation_share": 0.2, "mirror": True, "augment": PLAIN})
    samples = split(config.load(run))
    assert [s.id for s in samples["train"]] == [*(f"c{k}" for k in range(4)), *(f"c{k}.mirrored" for k in range(4))]
    assert [s.id for s in samples["validation"]] == ["c4"]
