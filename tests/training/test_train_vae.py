"""The command that trains the VAE, on tiny clips."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.marionette import train_vae
from training.marionette.backbone import encode, load_vae, wan_statistics


def clip(split: str, index: int, frames: int) -> torch.Tensor:
    return torch.rand(3, frames, 16, 16, generator=torch.Generator().manual_seed(index)) * 2 - 1


def test_a_finished_run_called_again_only_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "models" / "vae.safetensors"
    monkeypatch.setattr(train_vae, "sample_clip", clip)
    monkeypatch.setattr(train_vae, "VAE_FILE", shipped)
    arguments = ["train_vae", "--steps", "3", "--picture-steps", "1", "--frames", "5", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", arguments)
    train_vae.main()
    made = load_file(tmp_path / "run" / "vae.safetensors")
    assert not shipped.exists() and (tmp_path / "run" / "samples_00003.png").is_file()
    monkeypatch.setattr(sys, "argv", [*arguments, "--export"])
    train_vae.main()
    again = load_file(shipped)
    assert again.keys() == made.keys() and all(torch.equal(again[key], made[key]) for key in made)
    # its latents have, by channel, the statistics that Wan's networks expect: those of the clips they were measured on
    vae = load_vae(shipped)
    latents = torch.cat([encode(vae, clip("train", 10**6 + k, 9)[None]) for k in range(200)])
    for found, expected in zip((latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))), wan_statistics(vae), strict=True):
        assert (found - expected.flatten()).abs().max() < 0.05, (found, expected)


def test_a_decoder_alone_goes_on_and_latents_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What networks have learnt of latents holds with the new file."""
    before, shipped = load_file(train_vae.VAE_FILE), tmp_path / "shipped.safetensors"
    shutil.copyfile(train_vae.VAE_FILE, shipped)
    arguments = ["train_vae", "--steps", "2", "--batch", "1", "--frames", "5", "--out", str(tmp_path / "run")]
    arguments += ["--decoder-of", str(shipped)]
    monkeypatch.setattr(train_vae, "sample_clip", clip)
    monkeypatch.setattr(train_vae, "VAE_FILE", shipped)
    for _ in range(2):  # the second time with the file in whose place the result was put
        monkeypatch.setattr(sys, "argv", [*arguments, "--export"])
        train_vae.main()
        after = load_file(shipped)
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed and all(key.startswith(("decoder.", "conv2.")) for key in changed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--decoder-of", "{folder}/missing.safetensors"], "which can't be read (.*), expected a VAE of this shape"),
        (["--decoder-of", "{folder}/torn.safetensors"], "which can't be read (.*), expected a VAE of this shape"),
        (["--decoder-of", "{folder}/other.safetensors"], "which can't be read (.*), expected a VAE of this shape"),
        (["--decoder-of", "{shipped}", "--picture-steps", "5"], "--picture-steps is 5, expected none with --decoder-of"),
    ],
)
def test_a_decoder_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], said: str
) -> None:
    tensors = load_file(train_vae.VAE_FILE)
    (tmp_path / "torn.safetensors").write_bytes(b"not that")
    save_file({key: torch.cat([value, value]) for key, value in tensors.items()}, tmp_path / "other.safetensors")
    given = [one.replace("{folder}", str(tmp_path)).replace("{shipped}", str(train_vae.VAE_FILE)) for one in arguments]
    monkeypatch.setattr(sys, "argv", ["train_vae", "--out", str(tmp_path / "run"), *given])
    with pytest.raises(SystemExit):
        train_vae.main()
    assert re.search(said.replace("(.*)", r"\(.*\)"), capsys.readouterr().err, re.DOTALL)
