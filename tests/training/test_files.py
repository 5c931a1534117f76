"""LoRA files: exported from a run, looked at, and loaded through ComfyUI's own code."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamactor_core.contract import Contract
from tests.training.toy_backbones import write_wan
from tests.training.toy_runs import contract, settings, tensors, write_run
from training.__main__ import main
from training.errors import UserError
from training.files.export import export
from training.files.inspect import summary
from training.files.lora import read
from training.files.validate import report
from training.hashing import sha256
from training.marionette.backbone import LORA_FOLDER, MODEL_FILE


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Status, output and errors of a verb."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), errors.getvalue()


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_an_exported_file_is_the_runs_lora(tmp_path: Path, dtype: str, kind: torch.dtype) -> None:
    run = settings(tmp_path / "run")
    target = export(write_run(run), tmp_path / "x.safetensors", dtype)
    found, expected = load_file(target), tensors(run)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == (torch.float32 if key.endswith("alpha") else kind)
        assert torch.equal(found[key].float(), value.to(kind).float() if not key.endswith("alpha") else value)
    said = metadata(target)
    assert Contract.from_metadata(said) == contract(run)
    assert said["modelspec.title"] and said["modelspec.resolution"] == "64x96" and said["modelspec.precision"] == dtype


def test_the_verb_names_the_file(tmp_path: Path) -> None:
    out = write_run(settings(tmp_path / "run"))
    status, said, _ = call("export", out)
    assert status == 0
    target = out / "dreamactor_m2_marionette_pose.safetensors"
    assert str(target) in said and read(target).contract().backbone == "marionette"
    config = tmp_path / "run.yaml"
    config.write_text(f"preset: marionette\nout: {out.as_posix()}\n", "utf-8")
    for run in (config, out / "train"):
        target.unlink()
        assert call("export", run)[0] == 0 and target.is_file(), "a config and the train folder name the same run"
    assert sorted(path.name for path in out.iterdir()) == [target.name, "train"]


def test_each_expert_gets_a_file_of_its_own(tmp_path: Path) -> None:
    folder = write_wan(tmp_path / "wan", image=False, experts=2)
    names = []
    for expert in ("high_noise", "low_noise"):
        run = settings(tmp_path / expert, "wan2.2-i2v-a14b", backbone={"path": folder, "expert": expert})
        names.append(export(write_run(run)).name)
    assert names == [f"dreamactor_m2_wan2.2_i2v_a14b_pose_{expert}.safetensors" for expert in ("high_noise", "low_noise")]


def spoil(run: Any, what: str) -> None:
    """Change a run's folder."""
    path = run.out / "train" / "lora.safetensors"
    found, said = load_file(path), metadata(path)
    first = "diffusion_model.blocks.0.ffn.0"
    if what == "gone":
        path.unlink()
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "no contract":
        save_file(found, path)
    elif what == "a layer less":
        save_file({k: v for k, v in found.items() if not k.startswith(first)}, path, said)
    elif what == "no alpha":
        save_file({k: v for k, v in found.items() if k != f"{first}.alpha"}, path, said)
    elif what == "nan":
        found[f"{first}.lora_A.weight"][0, 0] = float("nan")
        save_file(found, path, said)
    elif what == "large":
        found[f"{first}.lora_A.weight"][0, 0] = 1e6
        save_file(found, path, said)
    elif what == "peft names":
        save_file({k.replace("diffusion_model.", "base_model.model."): v for k, v in found.items()}, path, said)
    elif what == "no state":
        (run.out / "train" / "state.safetensors").unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("gone", r"holds no lora\.safetensors"),
        ("cut", "damaged or unfinished"),
        ("no contract", "carries no dreamactor_m2"),
        ("a layer less", "covers 15 feed-forward layers and the model has 16"),
        ("no alpha", "alpha is missing"),
        ("nan", "training went wrong"),
        ("large", "fp16 can't hold it, take bf16 or fp32"),
        ("peft names", "are not named diffusion_model"),
        ("no state", "how far the run is can't be told"),
    ],
)
def test_a_run_that_is_not_right_is_refused(tmp_path: Path, what: str, message: str) -> None:
    run = settings(tmp_path / "run")
    write_run(run)
    spoil(run, what)
    with pytest.raises(UserError, match=message):
        export(run.out)
    assert [path.name for path in run.out.iterdir()] == ["train"], "nothing is written"


@pytest.mark.parametrize(("name", "value"), [("variant", "rgb"), ("layout", "temporal"), ("backbone", "wan2.1-i2v-14b")])
def test_another_runs_lora_is_refused(tmp_path: Path, name: str, value: str) -> None:
    out = write_run(settings(tmp_path / "run"), **{name: value})
    with pytest.raises(UserError, match=f"is of {name} {value}, expected .* another run's"):
        export(out)


def test_a_run_with_steps_to_go_is_exported_when_asked_to(tmp_path: Path) -> None:
    out = write_run(settings(tmp_path / "run"), step=12)
    status, _, errors = call("export", out)
    assert status == 1 and "has trained 12 of 20 steps" in errors
    assert call("export", out, "--unfinished")[0] == 0


def test_an_out_that_can_not_be_is_refused(tmp_path: Path) -> None:
    out = write_run(settings(tmp_path / "run"))
    with pytest.raises(UserError, match="is the run's own"):
        export(out, out / "train" / "lora.safetensors")
    with pytest.raises(UserError, match=r"expected a name that ends with \.safetensors"):
        export(out, tmp_path / "lora.pt")


@pytest.mark.parametrize("variant", ["pose", "rgb"])
def test_inspect_tells_of_the_shipped_files(variant: str) -> None:
    path = LORA_FOLDER / f"marionette_{variant}.safetensors"
    status, out, _ = call("inspect", path, "--json")
    found = json.loads(out)
    assert status == 0 and found == summary(path)
    assert found["contract"]["variant"] == variant and found["fits"] == ["marionette"] and found["sha256"] == sha256(path)
    assert found["layers"] == 16 and found["scales"] == [1.0] and list(found["ranks"].values()) == [16]
    status, out, _ = call("inspect", path)
    assert status == 0 and f"sha256 {sha256(path)}" in out and "fits      marionette" in out


def test_inspect_tells_what_a_file_fits(tmp_path: Path) -> None:
    """Wan 2.1 and 2.2 are alike in the layers that learn; the contract tells which."""
    run = settings(tmp_path, "wan2.1-i2v-14b", train={"rank": 1})
    path = tmp_path / "wan.safetensors"
    save_file(tensors(run), path, contract(run).to_metadata())
    assert summary(path)["fits"] == ["wan2.1-i2v-14b", "wan2.2-i2v-a14b"]


def test_inspect_refuses_what_is_no_lora(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"x")
    (tmp_path / "zero.safetensors").write_bytes(b"")
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(LORA_FOLDER / "marionette_pose.safetensors"), bare)
    for path, message in (
        (tmp_path / "none.safetensors", "there is no file"),
        (tmp_path / "x.pt", r"is a .pt file, expected .safetensors"),
        (tmp_path / "zero.safetensors", "can't be read as safetensors"),
        (MODEL_FILE, "is no LoRA: none of its"),
        (bare, "carries no dreamactor_m2"),
    ):
        status, _, errors = call("inspect", path)
        assert status == 1 and message in errors, path
    assert "sha256" in call("inspect", bare)[1], "what can be told is told"


def test_validate_asks_comfyui(tmp_path: Path) -> None:
    """Two processes, in which ComfyUI loads the shipped file, and one with a key of another naming and a layer less."""
    shipped = LORA_FOLDER / "marionette_rgb.safetensors"
    status, out, _ = call("validate", shipped, "--json")
    found = json.loads(out)
    assert status == 0 and found["ok"] and found["unmatched"] == 0 and found["contract"] == "fits"
    assert set(found["keys"].values()) == {"matched"} and len(found["keys"]) == 48
    assert found["patched"] == sorted(f"blocks.{k}.ffn.{n}" for k in range(8) for n in (0, 2)) and not found["without_patch"]

    wrong = load_file(shipped)
    for part in ("lora_A.weight", "lora_B.weight", "alpha"):
        wrong[f"blocks.3.ffn.net.2.{part}"] = wrong.pop(f"diffusion_model.blocks.3.ffn.2.{part}")
    path = tmp_path / "wrong.safetensors"
    save_file(wrong, path, metadata(shipped))
    status, out, _ = call("validate", path)
    assert status == 1
    for part in ("lora_A.weight", "lora_B.weight", "alpha"):
        assert f"unmatched  blocks.3.ffn.net.2.{part}" in out
    assert "no patch   blocks.3.ffn.2" in out and "3 unmatched; 15 layers patched, 1 without" in out
    assert "are not named diffusion_model" in out, "the contract's own words"


def test_validate_refuses_before_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = LORA_FOLDER / "marionette_rgb.safetensors"
    with pytest.raises(UserError, match="there is no diffusion model"):
        report(shipped, tmp_path / "none.safetensors")
    (tmp_path / "zero.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="can't be read as safetensors"):
        report(shipped, tmp_path / "zero.safetensors")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"COMFYUI_PATH is .* not a ComfyUI checkout"):
        report(shipped, MODEL_FILE)
