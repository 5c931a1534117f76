"""A run's LoRA, exported, is loaded by ComfyUI onto each backbone of toy size without a key left over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from toys import (
    HUNYUAN_DEPTH,
    HUNYUAN_FEED_FORWARD,
    HUNYUAN_WIDTH,
    WAN_DEPTH,
    WAN_FEED_FORWARD,
    WAN_INNER,
    WAN_WIDTH,
    contract,
    lora,
    write_hunyuan,
    write_wan,
)

from training import config
from training.config import Config
from training.files.export import export
from training.files.validate import report

CLIP = {"fps": 12, "frames": 5, "lead_in": 2 / 12, "sizes": [[32, 32]]}
HEADS = {"num_attention_heads": 1}
WAN = HEADS | {"attention_head_dim": WAN_WIDTH, "ffn_dim": WAN_INNER, "num_layers": WAN_DEPTH}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wan2.1": ("wan2.1-i2v-14b", "both", WAN | {"image_dim": 1280}),
    "wan2.2_high_noise": ("wan2.2-i2v-a14b", "high_noise", WAN),
    "wan2.2_low_noise": ("wan2.2-i2v-a14b", "low_noise", WAN),
    "hunyuan": ("hunyuanvideo-1.5-i2v", "both", HEADS | {"attention_head_dim": HUNYUAN_WIDTH, "num_layers": HUNYUAN_DEPTH}),
}


@pytest.mark.parametrize("case", CASES)
def test_no_key_is_left_over(case: str, tmp_path: Path) -> None:
    name, expert, dimensions = CASES[case]
    model = tmp_path / "model.safetensors"
    if case == "hunyuan":
        write_hunyuan(model)
    else:
        write_wan(model, image_embedding=case == "wan2.1")
    folder = tmp_path / "diffusers" / ("transformer_2" if expert == "low_noise" else "transformer")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dimensions), "utf-8")
    modules = HUNYUAN_FEED_FORWARD if case == "hunyuan" else WAN_FEED_FORWARD
    backbone = {"name": name, "expert": expert, "path": folder.parent}
    run = Config.model_validate({"out": tmp_path / "run", "variant": "rgb", "clip": CLIP, "backbone": backbone})
    config.save(run, run.out / "train")
    save_file(lora(modules), run.out / "train" / "lora.safetensors", contract(name, expert=expert))
    found = report(export(run.out, unfinished=True), model)
    assert found["ok"] and found["contract"] == "fits"
    assert set(found["keys"].values()) == {"matched"} and len(found["keys"]) == 3 * len(modules)
    assert found["patched"] == sorted(modules)
