"""The disk is full while a verb is at work: it says so, leaves nothing half-written, and with room it ends the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_clips import write_clips
from full_disk import can_be_had, partial, without_room
from verb_runs import MADE, cache_run, digests, score_run, synthesize_run, train_run

from training.__main__ import main

pytestmark = can_be_had


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "clips"
    write_clips(folder, 3)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def cached(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of `cache`."""
    out = tmp_path_factory.mktemp("cached")
    assert main(["cache", str(cache_run(clips, out))]) == 0
    return out


def run_of(folder: Path, name: str, make: Callable[[Path], Path]) -> tuple[Path, Path]:
    """A folder for a run, and the run's file."""
    out = folder / name
    out.mkdir()
    return out, make(out)


def ends_as(whole: Path, verb: str, out: Path, path: Path) -> None:
    """With room again the same command makes what the unbroken run made."""
    assert not partial(out)
    assert digests(out, MADE[verb]) != digests(whole, MADE[verb]), "there was room for all of it"
    assert main([verb, str(path)]) == 0
    assert digests(out, MADE[verb]) == digests(whole, MADE[verb]) != {}
    assert not partial(out)


def test_cache(clips: Path, cached: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In its processes, which have room for the first small file and for no shard."""
    out = tmp_path_factory.mktemp("without")  # as deep as the other: shards say where their clips lie from there
    path = cache_run(clips, out)
    assert f"{out / 'cache'} can't be written" in without_room("cache", path)
    assert (out / "cache" / "empty.safetensors").is_file() and not list(out.glob("cache/*/*.safetensors"))
    ends_as(cached, "cache", out, path)


def test_train(cached: Path, tmp_path: Path) -> None:
    """Once for nothing, then for its LoRA, but not for the state that it goes on from."""
    whole, path = run_of(tmp_path, "whole", lambda out: train_run(cached / "cache", out))
    assert main(["train", str(path)]) == 0
    lora, state = ((whole / "train" / f"{name}.safetensors").stat().st_size for name in ("lora", "state"))
    assert lora + 4096 < state
    out, path = run_of(tmp_path, "full", lambda out: train_run(cached / "cache", out))
    for room in (4096, lora + 4096):
        assert f"{out / 'train'} can't be written to" in without_room("train", path, room)
        assert not (out / "train" / "state.safetensors").exists() and not partial(out)
    ends_as(whole, "train", out, path)


@pytest.mark.parametrize("left", [0, 40])
def test_score(left: int, tmp_path: Path) -> None:
    """For no line of its journal, or for the beginning of one, after the lines that other clips have left there."""
    whole, path = run_of(tmp_path, "whole", score_run)
    assert main(["score", str(path)]) == 0
    out, path = run_of(tmp_path, "full", lambda out: score_run(out, workers=1))
    journal, room = out / "run" / "scores" / "journal.jsonl", 4096
    journal.parent.mkdir()
    line = json.dumps({"id": "another", "key": "", "scores": {}})
    journal.write_text(line[:-1].ljust(room - left - 2) + "}\n", "utf-8")
    said = without_room("score", path, room)
    assert "pair000 can't be scored" in said and "graded so far is kept; the same command goes on from there" in said
    assert journal.stat().st_size == room and not (out / "run" / "scores" / "manifest.jsonl").exists()
    ends_as(whole, "score", out, path)


def test_synthesize(tmp_path: Path) -> None:
    """In its workers for no clip, and, when all clips are there, for no manifest."""
    whole, path = run_of(tmp_path, "whole", synthesize_run)
    assert main(["synthesize", str(path)]) == 0
    out, path = run_of(tmp_path, "full", synthesize_run)
    said = without_room("synthesize", path, in_workers=True)
    assert f"{out / 'synthetic'} can't be written to" in said and "what is finished is kept: make room" in said
    assert not [file for file in (out / "synthetic" / "clips").rglob("*") if file.is_file()]
    ends_as(whole, "synthesize", out, path)
    manifest = out / "synthetic" / "manifest.jsonl"
    room = manifest.stat().st_size - 1
    assert (out / "synthetic" / "config.yaml").stat().st_size <= room
    manifest.unlink()
    assert "expected room on the disk" in without_room("synthesize", path, room)
    ends_as(whole, "synthesize", out, path)
