"""The training commands themselves, on a tiny network: a run that is stopped and resumed ends where an unbroken one does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamactor_core.contract import Contract
from training.checkpoint import save_atomic
from training.marionette import backbone, cache, train_base, train_lora

TINY = backbone.MODEL_CONFIG | {"attention_head_dim": 16, "num_attention_heads": 2, "ffn_dim": 48, "freq_dim": 16, "num_layers": 2}
FRAMES, ROWS, COLUMNS = 3, 4, 4
COUNT = 16


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    """Random latents where the cache would be."""
    generator = torch.Generator().manual_seed(0)
    shape, panels_in_group = (16, FRAMES, ROWS, COLUMNS), cache.CHARACTERS + 1
    for split in ("train", "validation"):
        panels = {k: torch.randn(COUNT, panels_in_group, *shape, generator=generator).half() for k in ("video", "first_frame")}
        composites = {
            "condition": torch.randn(COUNT, 16, FRAMES, ROWS, 2 * COLUMNS, generator=generator).half(),
            "target": torch.randn(COUNT, *shape, generator=generator).half(),
        }
        kinds = (("panels", panels, ["a bird flies"] * panels_in_group), ("pose", composites, ["a human waves"]))
        for kind, tensors, texts in kinds:
            metadata = {"text": json.dumps([texts] * COUNT), "kind": kind, "split": split, **cache._provenance(kind, split)}
            save_atomic(tensors, tmp_path / "cache" / f"{kind}_{split}" / "00000.safetensors", metadata)
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
    monkeypatch.setattr(train_lora, "LORA_FOLDER", models)
    monkeypatch.setattr(train_lora, "MODEL_FILE", model)
    backbone.save_model(network.state_dict(), model)
    start = {key: value.clone() for key, value in network.state_dict().items()}

    def load() -> torch.nn.Module:
        made = WanTransformer3DModel(**TINY)
        made.load_state_dict(start)
        return made

    monkeypatch.setattr(train_base, "load_model", load)
    monkeypatch.setattr(train_lora, "load_model", load)
    for trainer in (train_base, train_lora):  # pictures are for people, and slow
        monkeypatch.setattr(trainer, "sample_sheet", lambda *_: None)
    return models


def run(trainer: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    trainer.main()


@pytest.mark.parametrize(("trainer", "kind"), [(train_base, []), (train_lora, ["pose"])], ids=["base", "pose LoRA"])
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    trainer: ModuleType, kind: list[str], caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "marionette_pose.safetensors" if kind else "base.safetensors"
    options = [*kind, "--cache", caches, "--batch", 4, "--every", 2]
    if kind:
        options += ["--rank", 4]
    run(trainer, monkeypatch, *options, "--steps", 4, "--out", tmp_path / "whole")

    class Stopped(Exception):
        pass

    # the schedule depends on the number of steps: so the same run is stopped from outside, after its first checkpoint
    validate = trainer.validate

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(trainer, "validate", stop)
    with pytest.raises(Stopped):
        run(trainer, monkeypatch, *options, "--steps", 4, "--out", tmp_path / "parts")
    monkeypatch.setattr(trainer, "validate", validate)
    run(trainer, monkeypatch, *options, "--steps", 4, "--out", tmp_path / "parts")

    whole, parts = (load_file(tmp_path / run_ / name) for run_ in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not tiny.exists(), "only --export touches the shipped weights"
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_loss" in line] == [4]
    run(trainer, monkeypatch, *options, "--steps", 4, "--out", tmp_path / "parts", "--export")
    assert load_file(tiny / name).keys() == whole.keys()


def test_a_lora_s_parent_is_named(caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["pose", "--cache", caches, "--batch", 4, "--every", 1, "--rank", 4, "--steps", 1]
    run(train_lora, monkeypatch, *options, "--out", tmp_path / "first")
    parent = tmp_path / "first" / "marionette_pose.safetensors"
    run(train_lora, monkeypatch, *options, "--out", tmp_path / "second", "--init-lora", parent)
    with safe_open(tmp_path / "second" / "marionette_pose.safetensors", "pt") as file:
        contract = Contract.from_metadata(file.metadata())
    assert contract.parent_sha256 == train_lora.sha256(parent)
    assert contract.backbone_sha256 == train_lora.sha256(tmp_path / backbone.MODEL_FILE.name)
    rgb = tmp_path / "rgb.safetensors"
    save_file(load_file(parent), rgb, train_lora.contract_for("rgb").to_metadata())
    with pytest.raises(ValueError, match=r"rgb\.safetensors is a LoRA of variant rgb, expected pose"):
        run(train_lora, monkeypatch, *options, "--out", tmp_path / "third", "--init-lora", rgb)


def test_a_run_is_not_gone_on_with_on_other_terms(
    caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["pose", "--cache", caches, "--batch", 4, "--every", 1, "--rank", 4, "--out", tmp_path / "run"]
    run(train_lora, monkeypatch, *options, "--steps", 1)
    run(train_lora, monkeypatch, *options, "--steps", 2)  # its rate was not falling yet: longer is the same run
    parent = tmp_path / "run" / "marionette_pose.safetensors"
    for change, key in ((["--seed", 1], "seed"), (["--lr", 1e-3], "lr"), (["--init-lora", parent], "parent_sha256")):
        with pytest.raises(ValueError, match=key):
            run(train_lora, monkeypatch, *options, *change, "--steps", 3)
    base = tmp_path / backbone.MODEL_FILE.name
    backbone.save_model(WanTransformer3DModel(**TINY).state_dict(), base)
    with pytest.raises(ValueError, match="backbone_sha256"):
        run(train_lora, monkeypatch, *options, "--steps", 3)
    with pytest.raises(ValueError, match=r"marionette_pose\.safetensors was trained on a backbone with sha256"):
        run(train_lora, monkeypatch, *options[:-1], tmp_path / "warm", "--steps", 1, "--init-lora", parent)


def test_a_base_is_not_gone_on_with_from_another_start(
    caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--cache", caches, "--batch", 4, "--every", 1, "--out", tmp_path / "run"]
    run(train_base, monkeypatch, *options, "--steps", 1)
    monkeypatch.setattr(train_base, "MODEL_FILE", tmp_path / backbone.MODEL_FILE.name)
    with pytest.raises(ValueError, match="init_sha256"):
        run(train_base, monkeypatch, *options, "--init", "--steps", 2)


def test_a_cache_that_is_too_small_names_the_command(
    caches: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"holds 16 pose train samples, expected at least 40; .*--count 40"):
        run(train_lora, monkeypatch, "pose", "--cache", caches, "--batch", 40, "--out", tmp_path / "run")


def test_a_cache_with_a_gap_is_refused(caches: Path) -> None:
    shard = caches / "pose_train" / "00000.safetensors"
    shard.rename(shard.with_stem("00002"))
    with pytest.raises(ValueError, match=r"lacks shard 00000 \(2 in all\) of 3; .*--count 144"):
        cache.load(caches, "pose", "train")


def test_a_cache_of_another_drawing_is_refused(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.load(caches, "pose", "train")
    draw = cache.draw_pair
    monkeypatch.setattr(cache, "draw_pair", lambda *sample: (draw(*sample)[0], 0 * draw(*sample)[1], ""))
    cache._provenance.cache_clear()
    try:
        with pytest.raises(ValueError, match="drawn_sha256"):
            cache.load(caches, "pose", "train")
    finally:
        cache._provenance.cache_clear()


def test_a_cache_of_another_vae_is_refused(caches: Path) -> None:
    shard = caches / "pose_train" / "00000.safetensors"
    metadata = {"text": json.dumps([["x"]] * COUNT), **cache._provenance("pose", "train"), "vae_sha256": "0"}
    save_file(load_file(shard), shard, metadata)
    for use in (lambda: cache.load(caches, "pose", "train"), lambda: cache.build("pose", caches, 1, "train")):
        with pytest.raises(ValueError, match=r"vae_sha256 is 0, expected .* delete .*pose_train and make it again"):
            use()
