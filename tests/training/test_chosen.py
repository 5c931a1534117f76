"""`train.only`: a run on a part of a cache is the run on a cache of that part."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_clips import write_clips, write_run
from safetensors import safe_open
from short_runs import FLOAT, TRAIN, furthest, run_file, trained, write_cache

from training import config, manifest
from training.__main__ import main
from training.errors import UserError
from training.latents.read import Cache
from training.manifest import Sample
from training.train.chosen import chosen
from training.train.loop import Trainer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, of which two are held out: `encoded`; and `some`, a cache of two that are trained on and those two."""
    folder = tmp_path_factory.mktemp("world")
    samples = write_clips(folder / "clips", 5)
    write_cache(folder, "encoded", 1)
    cache = Cache(folder / "encoded" / "cache", "train")
    assert [place.id for place in cache.places] == ["c0", "c1", "c2"]
    manifest.write(folder / "clips" / "kept.jsonl", (s for s in samples if s.id in ("c0", "c2", "c4")))
    manifest.write(folder / "clips" / "c02.jsonl", (s for s in samples if s.id in ("c0", "c2")))
    manifest.write(folder / "clips" / "c34.jsonl", (s for s in samples if s.id in ("c3", "c4")))
    lists = {"manifest": str(folder / "clips" / "c02.jsonl"), "validation": str(folder / "clips" / "c34.jsonl")}
    write_cache(folder, "some", 1, lists)
    return folder


def test_a_part_of_a_cache_is_as_a_cache_of_the_part(world: Path, tmp_path: Path) -> None:
    part = trained(world, tmp_path / "part", only=str(world / "clips" / "kept.jsonl"))
    assert furthest(part, trained(world, tmp_path / "some", cache="some")) < 1e-6
    assert furthest(part, trained(world, tmp_path / "all")) > 1e-4, "the third clip makes a difference"


def test_a_run_goes_on_with_the_same_part_alone(world: Path, tmp_path: Path) -> None:
    trained(world, tmp_path, only=str(world / "clips" / "kept.jsonl"))
    with pytest.raises(UserError, match="with dataset_sha256 "):
        Trainer(config.load(run_file(world, tmp_path)))
    Trainer(config.load(run_file(world, tmp_path, only=str(world / "clips" / "c02.jsonl"))))  # which lists no other to train on


def changed(world: Path, path: Path, *found: Sample, **changes: dict[str, object]) -> Path:
    """A list of some samples, beside the clips. `changes`: of those with that id."""
    path = world / "clips" / path.name
    manifest.write(path, [sample.model_copy(update=changes.get(sample.id, {})) for sample in found])
    return path


def test_what_is_no_part_is_refused(world: Path, tmp_path: Path) -> None:
    samples = manifest.read(world / "clips" / "manifest.jsonl")
    cache, held_out = (Cache(world / "encoded" / "cache", split) for split in ("train", "validation"))
    path = changed(world, tmp_path / "other.jsonl", *samples[:2], c1={"id": "another"})
    with pytest.raises(UserError, match=r"lists 2 samples, of which 1 are not in .* \(another\), expected a part"):
        chosen(cache, held_out, [path])
    path = changed(world, tmp_path / "held_out.jsonl", *samples[3:])
    with pytest.raises(UserError, match=r"lists no accepted sample of kind pose .* to train on"):
        chosen(cache, held_out, [path])
    path = changed(world, tmp_path / "rejected.jsonl", *samples[:2], c0={"accepted": False}, c1={"accepted": True})
    assert [place.id for place in chosen(cache, held_out, [path]).places] == ["c1"], "a review's decisions count"
    path = changed(world, tmp_path / "rejected.jsonl", samples[0], c0={"accepted": False})
    with pytest.raises(UserError, match="lists no accepted sample"):
        chosen(cache, held_out, [path])
    other = changed(world, tmp_path / "other.jsonl", samples[1], samples[0], c1={"accepted": False})
    path = changed(world, tmp_path / "rejected.jsonl", *samples[:2], c0={"accepted": False})
    with pytest.raises(UserError, match=r"leaves nothing of .*: what one manifest lists of it another rejects; leave out the"):
        chosen(cache, held_out, [other, path])
    with pytest.raises(UserError, match="there is no manifest"):
        Trainer(config.load(run_file(world, tmp_path, only=str(tmp_path / "nothing.jsonl"))))
    with pytest.raises(UserError, match="no train shards"):
        Trainer(config.load(run_file(world, tmp_path, cache="nothing", only=str(path))))


def test_pairs_of_a_part_are_seen_in_a_mirror_too_and_said_to_be_what_they_are(tmp_path: Path) -> None:
    pairs = [pair.model_copy(update={"pairs": made}) for pair, made in zip(
        write_clips(tmp_path / "clips", 3, pairs=True), ("ground_truth", "synthetic", "synthetic"), strict=True
    )]  # fmt: skip
    manifest.write(tmp_path / "clips" / "manifest.jsonl", pairs)
    manifest.write(tmp_path / "clips" / "kept.jsonl", pairs[1:])
    sections = {"variant": "rgb", "motion_context": "cached", "backbone": FLOAT}
    cache = {"validation_share": 0.0, "workers": 1, "mirror": True}
    train = TRAIN | {"steps": 1, "only": str(tmp_path / "clips" / "kept.jsonl")}
    run = write_run(tmp_path / "run.yaml", tmp_path, **sections, cache=cache, train=train)
    assert main(["cache", str(run)]) == 0 and main(["train", str(run)]) == 0
    whole, none = Cache(tmp_path / "cache", "train"), Cache(tmp_path / "cache", "validation")
    assert whole.header("pairs") == "ground_truth,synthetic"
    part = chosen(whole, none, [tmp_path / "clips" / "kept.jsonl"])
    assert [place.id for place in part.places] == ["c1", "c2", "c1.mirrored", "c2.mirrored"]
    with safe_open(tmp_path / "train" / "lora.safetensors", "pt") as file:
        assert file.metadata()["dreamactor_m2.pairs"] == "synthetic"
    more = tmp_path / "clips" / "more.jsonl"
    manifest.write(more, [pairs[0].model_copy(update={"accepted": False}), pairs[1]])
    both = chosen(whole, none, [tmp_path / "clips" / "manifest.jsonl", more])
    assert both.header("pairs") == "synthetic", "the only true pair is rejected"
    manifest.write(more, [pairs[0].model_copy(update={"pairs": ""}), pairs[1]])
    assert chosen(whole, none, [more]).header("pairs") == "synthetic,unknown"
    manifest.write(more, [pairs[0].model_copy(update={"pairs": ""})])
    assert chosen(whole, none, [more]).header("pairs") == ""
