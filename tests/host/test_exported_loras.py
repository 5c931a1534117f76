"""What each preset trains, exported, is loaded by ComfyUI onto its backbone of toy size without a key left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from toys import (
    HUNYUAN_DEPTH,
    HUNYUAN_FEED_FORWARD,
    HUNYUAN_WIDTH,
    WAN_DEPTH,
    WAN_FEED_FORWARD,
    WAN_INNER,
    WAN_WIDTH,
    write_hunyuan,
    write_wan,
)

from tests.training import toy_backbones
from tests.training.drawn_clips import write_clips, write_run
from training.__main__ import main
from training.files.validate import report
from training.latents.read import Cache

RANK = 4
CLIP = {"fps": 12, "frames": 25, "lead_in": 0.6667, "sizes": [[64, 96]]}
TRAIN = {"steps": 1, "batch": 2, "rank": RANK, "every": 1, "validate_on": 1, "lr": 1e-2}
HEADS = {"num_attention_heads": 1}
WAN = HEADS | {"attention_head_dim": WAN_WIDTH, "ffn_dim": WAN_INNER, "num_layers": WAN_DEPTH}
HUNYUAN = HEADS | {"attention_head_dim": HUNYUAN_WIDTH, "num_layers": HUNYUAN_DEPTH, "rope_axes_dim": (16, 56, 56)}
PRESETS = ["wan2.1_i2v_14b", "wan2.2_i2v_a14b_high", "wan2.2_i2v_a14b_low", "hunyuanvideo1.5_i2v"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "clips"
    write_clips(folder, 3)
    return folder / "manifest.jsonl"


def write_folder(preset: str, folder: Path) -> Path:
    """What `backbone.path` names: all networks of a backbone, as training reads them."""
    if preset.startswith("hunyuan"):
        return toy_backbones.write_hunyuan(folder, **HUNYUAN)
    two = "a14b" in preset
    return toy_backbones.write_wan(folder, image=not two, experts=1 + two, **WAN)


def write_model(preset: str, path: Path) -> Path:
    """The network as ComfyUI reads it. Its weights are others: what is looked at are names and shapes."""
    if preset.startswith("hunyuan"):
        write_hunyuan(path)
    else:
        write_wan(path, image_embedding="a14b" not in preset)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_trains_is_loaded_without_a_key_left_over(preset: str, clips: Path, tmp_path: Path) -> None:
    folder = write_folder(preset, tmp_path / "diffusers")
    # the preset's own values but for sizes: keypoints in the cache, whose skeletons each step draws and encodes
    sections: dict[str, Any] = {"clip": CLIP, "backbone": {"path": str(folder)}, "train": TRAIN}
    cache = {"manifest": str(clips), "validation_share": 0.34, "workers": 1}
    run = write_run(tmp_path / "run.yaml", tmp_path, **{"preset": preset}, cache=cache, **sections)
    assert main(["cache", str(run)]) == 0 and main(["train", str(run)]) == 0
    assert Cache(tmp_path / "cache", "train").header("variants") == "0"
    exported = tmp_path / "lora.safetensors"
    assert main(["export", str(tmp_path), "--out", str(exported)]) == 0
    modules = HUNYUAN_FEED_FORWARD if preset.startswith("hunyuan") else WAN_FEED_FORWARD
    weights = load_file(exported)
    up = [value for key, value in weights.items() if "lora_B" in key or "lora_up" in key]
    assert len(up) == len(modules) and all(value.abs().max() > 0 for value in up), "a step was made in every layer"
    found = report(exported, write_model(preset, tmp_path / "model.safetensors"))
    assert found["ok"] and found["contract"] == "fits"
    assert set(found["keys"].values()) == {"matched"} and len(found["keys"]) == 3 * len(modules)
    assert found["patched"] == sorted(modules)
    with safe_open(exported, "pt") as file:
        expert = file.metadata()["dreamactor_m2.expert"]
    assert expert == {"high": "high_noise", "low": "low_noise"}.get(preset.rpartition("_")[2], "both")
