"""What `cache`, `train` and `synthesize` compute on: a CPU is said, and large networks are on it only where that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from synthesis import values

from training import backbones, config, devices
from training.__main__ import main
from training.config import merged
from training.errors import UserError
from training.latents.build import build
from training.synthesize.run import _gpus_here
from training.synthesize.worker import Worker
from training.train.loop import Trainer

ROOT = Path(__file__).resolve().parents[2]
SAID = r"weights of wan2\.1-i2v-14b would be computed on the CPU, expected a GPU: .*torch\.cuda\.is_available\(\) is False"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A run's file whose backbone's folder has files of 3 GB, with nothing in them."""
    for part in ("transformer", "vae", "text_encoder"):
        (tmp_path / "wan" / part).mkdir(parents=True)
        with (tmp_path / "wan" / part / "model.safetensors").open("wb") as file:
            file.truncate(10**9)
    backbone = {"name": "wan2.1-i2v-14b", "path": str(tmp_path / "wan")}
    run = tmp_path / "run.yaml"
    given = merged(values(tmp_path), {"backbone": backbone, "train": {"sample_sheets": 0}})
    run.write_text(yaml.safe_dump(given), "utf-8")
    return run


def test_what_torch_compiles_with_is_looked_for_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be missed in the first step."""
    from torch._inductor import cpp_builder, exc
    from torch.utils import _triton

    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    devices.check_compiler(cpu, "train.compile: true", "train.compile: false")

    def none_found() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    with pytest.raises(UserError, match=r"train\.optimizer: adamw8bit has torch compile for cpu and a C\+\+ compiler is not here"):
        devices.check_compiler(cpu, "train.optimizer: adamw8bit", "train.optimizer: adamw")
    for found, path, said in ((False, "x", "Triton is not here"), (True, "", "a C compiler is not here")):
        monkeypatch.setattr(_triton, "has_triton", lambda found=found: found)
        monkeypatch.setattr(devices.shutil, "which", lambda name, path=path: path)
        monkeypatch.delenv("CC", raising=False)
        with pytest.raises(UserError, match=rf"{said}: install it, or set train\.compile: false"):
            devices.check_compiler(cuda, "train.compile: true", "train.compile: false")
    run = values(tmp_path) | {"train": {"optimizer": "adamw8bit", "compile": False, "sample_sheets": 0}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), "utf-8")
    with pytest.raises(UserError, match=r"or set train\.optimizer: adamw$"):
        Trainer(config.load(tmp_path / "run.yaml"))


@pytest.mark.parametrize(
    ("available", "asked", "expected"),
    [(True, "", ["cuda:0", "cuda:1"]), (False, "", ["cpu"]), (True, "true", ["cpu"]), (True, "false", ["cuda:0", "cuda:1"])],
)
def test_gpus_are_those_that_torch_can_use(
    available: bool, asked: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts them by the driver's word, and says of a driver too old for it that none is available."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if asked:
        monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    assert devices.found() == expected
    assert _gpus_here() == len(expected) * (expected != ["cpu"])


@pytest.mark.parametrize("verb", ["cache", "synthesize", "train"])
def test_large_networks_are_not_on_the_cpu_unasked(verb: str, large: Path) -> None:
    """Before anything is read: there are no clips, no cache and no LoRA of this network. In a process that sees no GPU."""
    hidden = {name: "" for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")}
    command = [sys.executable, "-m", "training", verb, str(large)]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | hidden, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "the 3 GB of weights of wan2.1-i2v-14b would be computed on the CPU, expected a GPU" in ended.stderr
    for words in (f"torch {torch.__version__} says torch.version.cuda is {torch.version.cuda}", "ACCELERATE_USE_CPU=true"):
        assert words in ended.stderr
    assert verb == "synthesize" or f"{verb}: on the CPU (torch finds no GPU)" in ended.stdout


def test_a_worker_looks_for_itself(large: Path) -> None:
    """On a cluster nobody else knows its machine."""
    with pytest.raises(UserError, match=SAID):
        Worker(config.load(large).model_dump(mode="json"), None, 1).load()


@pytest.mark.parametrize(("cuda", "said"), [("13.0", "a driver too old for CUDA 13.0"), (None, "not built for NVIDIA GPUs")])
def test_what_may_be_the_reason(cuda: str | None, said: str, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(UserError, match=f"{SAID}; .*{said}"):
        devices.check(backbones.get(config.load(large).backbone), "cpu")


def test_whoever_asks_for_the_cpu_has_it(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.get(config.load(large).backbone)
    devices.check(backbone, "cuda:0")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    devices.check(backbone, "cpu")
    assert devices.in_words("cpu") == "the CPU (as asked)"
    with pytest.raises(UserError, match="manifest"):  # the next thing that is missing
        build(config.load(large))


def test_small_networks_are_on_the_cpu_unasked(large: Path, tmp_path: Path) -> None:
    for part in ("transformer", "vae", "text_encoder"):
        (tmp_path / "wan" / part / "model.safetensors").write_bytes(bytes(1000))
    devices.check(backbones.get(config.load(large).backbone), "cpu")
    devices.check(backbones.get(config.Backbone(name="marionette")), torch.device("cpu"))


def test_synthesize_says_where_it_works(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(values(tmp_path)), "utf-8")
    assert main(["synthesize", str(run)]) == 1, "there are no clips"
    assert "synthesize: on the CPU (torch finds no GPU)" in capfd.readouterr().out
