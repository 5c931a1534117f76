"""The base's training command itself, on a tiny network: a run that is stopped and resumed ends where an unbroken one does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from training.checkpoint import save_atomic
from training.marionette import backbone, panels, train_base

TINY = backbone.MODEL_CONFIG | {"attention_head_dim": 16, "num_attention_heads": 2, "ffn_dim": 48, "freq_dim": 16, "num_layers": 2}
FRAMES, ROWS, COLUMNS = 3, 4, 4
COUNT = 16


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    """Random latents where the cache would be."""
    generator = torch.Generator().manual_seed(0)
    shape, members = (16, FRAMES, ROWS, COLUMNS), panels.CHARACTERS + 1
    for split in ("train", "validation"):
        tensors = {k: torch.randn(COUNT, members, *shape, generator=generator).half() for k in ("video", "first_frame")}
        metadata = {"text": json.dumps([["a bird flies"] * members] * COUNT), "split": split, **panels._provenance(split)}
        save_atomic(tensors, tmp_path / "cache" / split / "00000.safetensors", metadata)
    return tmp_path / "cache"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The trainers make and read a tiny network, and what they export goes to this folder."""
    torch.manual_seed(0)
    model, models = tmp_path / backbone.MODEL_FILE.name, tmp_path / "models"
    network = WanTransformer3DModel(**TINY)
    monkeypatch.setattr(backbone, "MODEL_CONFIG", TINY)
    monkeypatch.setattr(train_base, "MODEL_CONFIG", TINY)
    monkeypatch.setattr(train_base, "MODEL_FILE", models / "base.safetensors")
    backbone.save_model(network.state_dict(), model)
    start = {key: value.clone() for key, value in network.state_dict().items()}

    def load() -> torch.nn.Module:
        made = WanTransformer3DModel(**TINY)
        made.load_state_dict(start)
        return made

    monkeypatch.setattr(train_base, "load_model", load)
    monkeypatch.setattr(train_base, "sample_sheet", lambda *_: None)  # pictures are for people, and slow
    return models


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    train_base.main()


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "base.safetensors"
    options = ["--cache", caches, "--batch", 4, "--every", 2]
    run(monkeypatch, *options, "--steps", 4, "--out", tmp_path / "whole")

    class Stopped(Exception):
        pass

    # the schedule depends on the number of steps: so the same run is stopped from outside, after its first checkpoint
    validate = train_base.validate

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(train_base, "validate", stop)
    with pytest.raises(Stopped):
        run(monkeypatch, *options, "--steps", 4, "--out", tmp_path / "parts")
    monkeypatch.setattr(train_base, "validate", validate)
    run(monkeypatch, *options, "--steps", 4, "--out", tmp_path / "parts")

    whole, parts = (load_file(tmp_path / run_ / name) for run_ in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not tiny.exists(), "only --export touches the shipped weights"
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_loss" in line] == [4]
    run(monkeypatch, *options, "--steps", 4, "--out", tmp_path / "parts", "--export")
    assert load_file(tiny / name).keys() == whole.keys()


def test_a_base_is_not_gone_on_with_from_another_start(
    caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--cache", caches, "--batch", 4, "--every", 1, "--out", tmp_path / "run"]
    run(monkeypatch, *options, "--steps", 1)
    monkeypatch.setattr(train_base, "MODEL_FILE", tmp_path / backbone.MODEL_FILE.name)
    with pytest.raises(ValueError, match="init_sha256"):
        run(monkeypatch, *options, "--init", "--steps", 2)


def test_a_cache_with_a_gap_is_refused(caches: Path) -> None:
    shard = caches / "train" / "00000.safetensors"
    shard.rename(shard.with_stem("00002"))
    with pytest.raises(ValueError, match=r"lacks shard 00000 \(2 in all\) of 3; .*--count 144"):
        panels.load(caches, "train")


def test_a_cache_of_another_drawing_is_refused(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels.load(caches, "train")
    draw = panels.draw_panels
    monkeypatch.setattr(panels, "draw_panels", lambda *group: (draw(*group)[0], [""]))
    panels._provenance.cache_clear()
    try:
        with pytest.raises(ValueError, match="drawn_sha256"):
            panels.load(caches, "train")
    finally:
        panels._provenance.cache_clear()


def test_a_cache_of_another_vae_is_refused(caches: Path) -> None:
    shard = caches / "train" / "00000.safetensors"
    metadata = {"text": json.dumps([["x"]] * COUNT), **panels._provenance("train"), "vae_sha256": "0"}
    save_file(load_file(shard), shard, metadata)
    for use in (lambda: panels.load(caches, "train"), lambda: panels.build(caches, 1, "train")):
        with pytest.raises(ValueError, match=r"vae_sha256 is 0, expected .* delete .*train and make it again"):
            use()
