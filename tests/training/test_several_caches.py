"""`train.cache` with a list: a run on several caches is the run on one cache of all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from drawn_clips import write_clips
from short_runs import furthest, run_file, trained, write_cache

from training import config, manifest
from training.errors import UserError
from training.latents.several import opened
from training.train.chosen import chosen
from training.train.loop import Trainer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, of which two are held out: in `encoded` all, in `early` without c2, in `late` c2 alone."""
    folder = tmp_path_factory.mktemp("world")
    samples = [one.model_copy(update={"source_sha256": f"file of {one.id}"}) for one in write_clips(folder / "clips", 5)]
    write_cache(folder, "encoded", 1)
    for name, ids in (("c01", ("c0", "c1")), ("c2", ("c2",)), ("c34", ("c3", "c4"))):
        manifest.write(folder / "clips" / f"{name}.jsonl", (sample for sample in samples if sample.id in ids))
    lists = {name: str(folder / "clips" / f"{name}.jsonl") for name in ("c01", "c2", "c34")}
    write_cache(folder, "early", 1, {"manifest": lists["c01"], "validation": lists["c34"]})
    write_cache(folder, "late", 1, {"manifest": lists["c2"], "validation_share": 0.0})
    write_cache(folder, "again", 1, {"manifest": lists["c2"], "validation": lists["c34"]})
    write_cache(folder, "other", 1, {"manifest": lists["c01"], "validation_share": 0.0, "text": "concatenated"})
    neighbour = samples[2].model_copy(update={"id": "n2", "source_sha256": samples[3].source_sha256})
    manifest.write(folder / "clips" / "n2.jsonl", [neighbour])
    write_cache(folder, "neighbour", 1, {"manifest": str(folder / "clips" / "n2.jsonl"), "validation_share": 0.0})
    return folder


def test_several_caches_are_as_one_of_all(world: Path, tmp_path: Path) -> None:
    together = trained(world, tmp_path / "both", cache=("early", "late"))
    assert furthest(together, trained(world, tmp_path / "one")) < 1e-6
    assert furthest(together, trained(world, tmp_path / "early", cache="early")) > 1e-4, "the third clip makes a difference"
    with pytest.raises(UserError, match="with dataset_sha256 "):
        Trainer(config.load(run_file(world, tmp_path / "both", cache="early")))


def test_parts_of_several_are_listed_by_several(world: Path) -> None:
    train, held_out = opened([world / name / "cache" for name in ("early", "late")])
    assert [place.id for place in train.places] == ["c0", "c1", "c2"] and [place.id for place in held_out.places] == ["c3", "c4"]
    lists = [world / "clips" / f"{name}.jsonl" for name in ("c01", "c2")]
    assert [place.id for place in chosen(train, held_out, lists).places] == ["c0", "c1", "c2"]
    late = opened([world / "late" / "cache"])[0]
    with pytest.raises(
        UserError, match=re.escape(f"{lists[0]} lists 2 samples, of which 2 are not in {world / 'late' / 'cache'} (c0)")
    ):
        chosen(late, held_out, lists)
    with pytest.raises(
        UserError, match=r"c34.jsonl lists no accepted sample of kind pose that .*early/cache and .*late/cache has to train on"
    ):
        chosen(train, held_out, [*lists, world / "clips" / "c34.jsonl"])
    with pytest.raises(UserError, match=r"leaves nothing of .*late/cache to train on: no manifest lists any of it; name its m"):
        chosen(train, held_out, lists[:1])


def test_what_one_list_rejects_is_not_trained_on(world: Path, tmp_path: Path) -> None:
    train, held_out = opened([world / name / "cache" for name in ("early", "late")])
    samples = manifest.read(world / "clips" / "manifest.jsonl")
    rejected = world / "clips" / "rejected.jsonl"
    manifest.write(rejected, [samples[0].model_copy(update={"accepted": False}), *samples[1:3]])
    found = chosen(train, held_out, [world / "clips" / "c01.jsonl", rejected])
    assert [place.id for place in found.places] == ["c1", "c2"]


def test_what_is_not_one_is_refused(world: Path, tmp_path: Path) -> None:
    early, late, again, other, nothing = (world / name / "cache" for name in ("early", "late", "again", "other", "nothing"))
    with pytest.raises(
        UserError, match=r"early.cache has c0 to train on, and .*encoded.cache has it to train on, expected caches of"
    ):
        opened([early, world / "encoded" / "cache"])
    with pytest.raises(UserError, match=r"has c3 held out, and .*again.cache has it held out, .* where both hold out the same"):
        opened([early, again])
    with pytest.raises(UserError, match=r"lists .*early/../early/cache twice"):
        opened([early, early.parent / ".." / "early" / "cache"])
    neighbour = world / "neighbour" / "cache"
    with pytest.raises(
        UserError, match=r"n2 of .*neighbour/cache is to be trained on, and c3 of .*early/cache, of the same source file"
    ):
        opened([early, neighbour])
    with pytest.raises(UserError, match=r"other.cache has text concatenated, expected fused as .*late.cache has"):
        opened([late, other])
    assert opened([early, nothing])[0].folder == nothing
    with pytest.raises(
        UserError, match=r"nothing.cache has no train shards; run `python -m training cache` with the file whose `out` is"
    ):
        Trainer(config.load(run_file(world, tmp_path, cache=("early", "nothing"))))
    for key in ("cache", "only"):
        with pytest.raises(UserError, match=f"train.{key}: .*expected a path, or a list of one at least"):
            config.load(run_file(world, tmp_path, **({"cache": ()} if key == "cache" else {"only": []})))
