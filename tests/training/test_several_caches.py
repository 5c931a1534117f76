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
    samples = write_clips(folder / "clips", 5)
    write_cache(folder, "encoded", 1)
    for name, ids in (("c01", ("c0", "c1")), ("c2", ("c2",)), ("c34", ("c3", "c4"))):
        manifest.write(folder / "clips" / f"{name}.jsonl", (sample for sample in samples if sample.id in ids))
    lists = {name: str(folder / "clips" / f"{name}.jsonl") for name in ("c01", "c2", "c34")}
    write_cache(folder, "early", 1, {"manifest": lists["c01"], "validation": lists["c34"]})
    write_cache(folder, "late", 1, {"manifest": lists["c2"], "validation_share": 0.0})
    write_cache(folder, "again", 1, {"manifest": lists["c2"], "validation": lists["c34"]})
    write_cache(folder, "other", 1, {"manifest": lists["c01"], "validation_share": 0.0, "text": "concatenated"})
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
    assert len(chosen(train, held_out, lists)) == 3
    assert [place.id for place in chosen(train, held_out, lists[1:]).places] == ["c2"]
    said = f"{lists[0]} and {lists[1]} lists 3 samples, of which 2 are not in {world / 'late' / 'cache'}"
    with pytest.raises(UserError, match=re.escape(said)):
        chosen(opened(world / "late" / "cache")[0], held_out, lists)


def test_what_is_not_one_is_refused(world: Path) -> None:
    early, late, again, other, nothing = (world / name / "cache" for name in ("early", "late", "again", "other", "nothing"))
    with pytest.raises(UserError, match=r"early.cache and .*encoded.cache both hold c0, expected caches of different samples"):
        opened([early, world / "encoded" / "cache"])
    with pytest.raises(UserError, match="both hold c3"):
        opened([early, again])
    with pytest.raises(UserError, match=r"other.cache has text concatenated, expected fused as .*late.cache has"):
        opened([late, other])
    assert opened([early, nothing])[0].folder == nothing, "which training then says to make first"
