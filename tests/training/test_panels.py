"""The panels of the base: what is left out of encoding is not missed, and a build goes on after what is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from dreamactor_core.layout import BLANK
from training.latents.encode import to_pixels
from training.marionette import backbone, panels
from training.marionette.backbone import load_vae
from training.marionette.world import FRAMES
from training.precision import bfloat16_is_native


def test_blank_frames_have_settled_where_panels_stop_to_encode_them() -> None:
    """A first frame and blank ones, encoded in full length, are what the cache makes of a part of them, but for less than its
    half precision."""
    vae = load_vae()
    with torch.no_grad():
        made = panels._encode_panels(vae, "validation", 0)
        clip = to_pixels(panels.draw_panels("validation", 0)[0][0])
        whole = torch.full_like(clip, BLANK)
        whole[:, :, 0] = clip[:, :, 0]
        full = backbone.normalise(vae, backbone.encode(vae, whole).float())[0]
        video = backbone.normalise(vae, backbone.encode(vae, clip).float())[0]
    assert made["first_frame"][0].shape == full.shape and full.shape[1] == (FRAMES - 1) // 4 + 1
    difference = (made["first_frame"][0] - full).abs()
    assert difference[:, :4].max() < 1e-3 and difference.max() < 0.06 and difference.mean() < 0.01
    assert (made["video"][0] - video).abs().max() < 1e-3
    assert len(made["text"]) == len(made["video"]) == panels.CHARACTERS + 1


def _die(split: str, device: str, job: tuple[Path, range]) -> NoReturn:
    """Ends the process without a word, as the system does for lack of memory."""
    os._exit(9)


def test_a_process_that_is_ended_from_outside_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "_write_shard", _die)
    monkeypatch.setattr(panels.os, "cpu_count", lambda: 2)
    with pytest.raises(RuntimeError, match=r"ended from outside, .*; 0 of 2 shards are there: run the same command again"):
        panels.build(tmp_path, 2 * panels.SHARD, "train")


def test_a_second_call_goes_on_where_the_first_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "SHARD", 1)
    panels.build(tmp_path, 1, "train")
    first = tmp_path / "train" / "00000.safetensors"
    written = first.stat().st_mtime_ns
    panels.build(tmp_path, 3, "train")  # two that are missing: in two processes
    assert first.stat().st_mtime_ns == written
    one, two, three = panels.load(tmp_path, "train")[0]["video"]
    assert not torch.equal(one, two) and not torch.equal(two, three)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_native("cpu")):
        alone = panels._encode_panels(load_vae(), "train", 2)["video"].half()
    assert (three - alone).abs().max() < 0.06  # another number of threads rounds otherwise
