"""Cached motion contexts through `cache` and `train`: what must agree agrees, and nothing of a joint run is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawn_clips import write_clips, write_run
from safetensors import safe_open
from safetensors.torch import load_file
from short_runs import FLOAT, TRAIN, agree, by_two, conditions_are_those_of_the_cache, run_file, trained, write_cache

from dreamactor_core.conditions import encode_still
from dreamactor_core.contract import Contract
from training import config
from training.errors import UserError
from training.latents.read import Cache
from training.marionette import backbone
from training.marionette.world import Plan, rng_for, sample_scene
from training.train.loop import Trainer

CONTEXT = "cached_near_half"
SECTIONS = {"motion_context": CONTEXT}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips; caches for the context of augmented skeletons and of keypoints, and one for the paper's."""
    folder = tmp_path_factory.mktemp("world")
    write_clips(folder / "clips", 6)
    for name, variants, context in (("encoded", 1, CONTEXT), ("keypoints", 0, CONTEXT), ("joint", 1, "joint")):
        write_cache(folder, name, variants, motion_context=context)
    return folder


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    trained(world, out, sections=SECTIONS)
    return out


def test_the_cache_keeps_reference_and_driver_apart(world: Path) -> None:
    cache = Cache(world / "encoded" / "cache", "train")
    found = cache.tensors(0)
    assert found["target"].shape == (16, 7, 12, 8) and found["condition"].shape == (1, 16, 7, 12, 8)
    assert found["motion"].shape == (1, 16, 7, 6, 4), "at half the size"
    assert cache.header("apart") == "2"
    joint = Cache(world / "joint" / "cache", "train")
    assert joint.header("apart") == "" and "motion" not in joint.tensors(0)


def test_the_lora_says_its_context_and_has_learnt(plain: Path) -> None:
    with safe_open(plain / "train" / "lora.safetensors", "pt") as file:
        assert Contract.from_metadata(file.metadata()).motion_context == CONTEXT
    moved = load_file(plain / "train" / "lora.safetensors")
    assert min(float(value.abs().max()) for key, value in moved.items() if "lora_B" in key) > 1e-4, "in every layer"


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"checkpointing": True}], ids=str)
def test_what_changes_nothing_changes_nothing(change: dict, world: Path, plain: Path, tmp_path: Path) -> None:
    """With checkpointing every block of both passes is computed twice, and must find its own pass."""
    trained(world, tmp_path, sections=SECTIONS, **change)
    agree(tmp_path, plain)


def test_drivers_made_in_training_are_those_of_the_cache(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions_are_those_of_the_cache(world, tmp_path, monkeypatch, sections=SECTIONS)


def test_two_processes_are_one(world: Path, plain: Path, tmp_path: Path) -> None:
    """In the way that takes the network apart; with a whole one each, both passes are as of any other network."""
    done = by_two(run_file(world, tmp_path, sections=SECTIONS, sharding="fsdp2"))
    assert done.returncode == 0, done.stderr[-3000:]
    agree(tmp_path, plain)


def test_a_cache_or_a_run_of_another_context_is_refused(world: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a cache with apart not set, expected 2; name the right one in train\.cache"):
        Trainer(config.load(run_file(world, tmp_path, "joint", SECTIONS)))
    own = write_run(tmp_path / "own.yaml", world / "joint", **SECTIONS, backbone=FLOAT, train=TRAIN)
    with pytest.raises(UserError, match="expected 2; delete it and run `python -m training cache` with this file"):
        Trainer(config.load(own))
    run = run_file(world, plain, sections=SECTIONS)
    run.write_text(run.read_text("utf-8").replace(CONTEXT, "joint").replace("encoded", "joint"), "utf-8")
    with pytest.raises(UserError, match="was saved by a run with"):
        Trainer(config.load(run))
    run_file(world, plain, sections=SECTIONS)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"layout": "temporal"}, "motion_context is cached_half with layout temporal, expected spatial"),
        ({"backbone": {"name": "hunyuanvideo-1.5-i2v"}}, "cached_half for hunyuanvideo-1.5-i2v, expected joint"),
        ({"train": {"loss": "full"}}, "train.loss is full with motion_context cached_half, expected generated"),
        ({"clip": {"sizes": [[64, 80]]}}, "has 64x80, with motion_context cached_half: width and height must be divisible by 32"),
        ({"motion_context": "fast"}, "motion_context"),
    ],
    ids=str,
)
def test_settings_that_can_t_be(values: dict, said: str, tmp_path: Path) -> None:
    given = {"preset": "marionette", "out": str(tmp_path), "motion_context": "cached_half"} | values
    with pytest.raises(UserError, match=said):
        config.from_values(given, "test")


@pytest.mark.parametrize(("plan", "half"), [("human", False), ("cartoon", False), ("bird", False), ("human", True)])
def test_blank_frames_of_the_real_vae_settle(plan: Plan, half: bool) -> None:
    """In either precision within the first 29 frames, which are encoded once, and what stands for the rest is what it would be."""
    vae, seen = backbone.load_vae(), []
    whole = torch.from_numpy(sample_scene(rng_for("test", 5, 1), plan).draw()[0][0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    picture = whole[..., 32:80, 16:48]  # some CPUs emulate half precision: a quarter of the time

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.shape[2])
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return backbone.encode(vae, pixels).float()

    got = encode_still(encode, picture, 61, torch.bfloat16 if half else torch.float32)
    assert seen == [29]
    video = torch.zeros(1, 3, 61, *picture.shape[2:])
    video[:, :, 0] = picture
    assert (got - encode(video)).abs().max() < (0.05 if half else 1e-3)  # of values up to 10: what half precision rounds
