"""Half precision only where the machine computes in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from training import backbones, config, precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx512_bf16": False}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"sve_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_auto_is_what_the_processor_computes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump({"preset": "marionette", "out": str(tmp_path)}))
    settings = config.load(run)
    assert settings.backbone.dtype == expected
    assert backbones.get(settings.backbone).dtype == getattr(torch, expected)
    # the copy beside the result says which it was, and stays at it on another machine
    assert yaml.safe_load(config.save(settings, tmp_path).read_text("utf-8"))["backbone"]["dtype"] == expected


def test_what_is_stated_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bfloat16_is_native", lambda device: False)
    assert config.Backbone(name="marionette", dtype="bfloat16").dtype == "bfloat16"
    assert config.Backbone(name="marionette").dtype == "bfloat16"


def test_a_single_clip_is_encoded_and_decoded_as_in_a_batch() -> None:
    encoders = backbones.get(config.Backbone(name="marionette", dtype="float32")).load_encoders(torch.device("cpu"))
    clips = torch.rand(2, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encoders.encode(clips)
    alone = encoders.encode(clips[1:])
    assert alone.shape == (1, *latents.shape[1:])
    torch.testing.assert_close(alone, latents[1:], atol=1e-4, rtol=0)
    pictures = encoders.decode(latents[1:])
    assert pictures.shape == (1, *clips.shape[1:])
    torch.testing.assert_close(pictures, encoders.decode(latents)[1:], atol=1e-4, rtol=0)
