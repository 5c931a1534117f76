"""The control of the held-out loss: every sample is compared with another one's driver, or with none."""

from __future__ import annotations

import json
import shutil

import pytest
from drawn_clips import write_clips
from short_runs import run_file, write_cache

from training import config
from training.latents.read import Cache
from training.train.data import Batches
from training.train.loop import Trainer
from training.train.run import summary
from training.train.validation import validate


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Of four clips in shards of one, which are held out as well: two of one bucket, and two that are alone in theirs."""
    world = tmp_path_factory.mktemp("world")
    write_clips(world / "clips", 4)
    write_cache(world, "encoded", 1, more={"shard": 1, "validation_share": 0})
    held_out = shutil.copytree(world / "encoded" / "cache", world / "held_out")
    for shard, bucket in zip(sorted((held_out / "train").iterdir()), ("two", "two", "one", "single"), strict=True):
        shard.rename(shard.with_name(f"{bucket}_{shard.stem.rpartition('_')[2]}.safetensors"))
    made = Trainer(config.load(run_file(world, world / "run")))
    made.held_out = Batches(Cache(held_out, "train"), made.backbone, made.settings)
    return made


def figures(trainer: Trainer, ids: list[str], batch: int = 2) -> tuple[float, float | None]:
    numbers = [number for number, place in enumerate(trainer.held_out.cache.places) if place.id in ids]
    assert len(numbers) == len(ids)
    return validate(trainer.backbone, trainer.model, trainer.held_out, numbers, batch, trainer.accelerator)


def test_one_of_a_bucket_gets_the_driver_of_another_that_was_not_chosen(trainer: Trainer) -> None:
    """What both come to one by one is what they come to together, where each has the other's driver."""
    first, second, both = (figures(trainer, ids) for ids in (["c0"], ["c1"], ["c0", "c1"]))
    assert abs(first[1] - first[0]) > 1e-3, "it was shown another driver"
    for place in (0, 1):
        assert (first[place] + second[place]) / 2 == pytest.approx(both[place], rel=1e-5)


def test_what_is_alone_in_its_bucket_counts_in_the_loss_only(trainer: Trainer) -> None:
    first, alone, both = (figures(trainer, ids) for ids in (["c0"], ["c2"], ["c0", "c2"]))
    assert alone[1] is None
    assert both[0] == pytest.approx((first[0] + alone[0]) / 2, rel=1e-5) and both[1] == pytest.approx(first[1], rel=1e-6)


def test_without_a_partner_nothing_is_said_of_drivers(trainer: Trainer) -> None:
    trainer.held_out.cache.places = [place for place in trainer.held_out.cache.places if place.id in ("c2", "c3")]
    trainer.run()
    lines = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if "validation_loss" in line] == [1, 2]
    assert not [line for line in lines if "with_another_driver" in line]
    said = summary(trainer.settings, trainer.folder, 60, "cpu", 1)
    assert "held-out loss at step 2" in said and "no other clip of the same size" in said and "not followed" not in said
