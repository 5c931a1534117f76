"""Where networks run: on the device that was asked for, or nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from marker_networks import Graph, dot_network
from onnx import TensorProto

from dreamactor_core.extract.errors import ExtractError
from dreamactor_core.extract.session import PROVIDERS, choose_device, load, runtime


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The providers that onnxruntime says it has."""
    providers = [PROVIDERS["cpu"]]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    return providers


def test_the_device_is_the_one_asked_for(offers: list[str]) -> None:
    assert choose_device("cpu", host_has_cuda=True) == "cpu"
    assert choose_device("auto", host_has_cuda=False) == "cpu"
    offers.insert(0, PROVIDERS["cuda"])
    assert choose_device("cuda", host_has_cuda=False) == "cuda"
    assert choose_device("auto", host_has_cuda=True) == "cuda"
    assert choose_device("auto", host_has_cuda=False) == "cpu", "ComfyUI was started on the CPU"
    with pytest.raises(ExtractError, match="device is 'tpu', expected one of auto, cuda, cpu"):
        choose_device("tpu", host_has_cuda=True)


def test_a_gpu_that_cannot_be_used_is_an_error_and_not_the_cpu(offers: list[str]) -> None:
    with pytest.raises(ExtractError, match=r"device is cuda, but onnxruntime .* expected CUDAExec.* pip install onnxruntime-gpu"):
        choose_device("cuda", host_has_cuda=True)
    with pytest.raises(ExtractError, match=r"device is auto on an NVIDIA GPU, but onnxruntime .* or set device to cpu"):
        choose_device("auto", host_has_cuda=True)


def test_a_session_that_comes_up_on_another_device_is_an_error(
    tmp_path: Path, offers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime warns and takes the CPU where CUDA's libraries do not load."""
    offers.insert(0, PROVIDERS["cuda"])
    path = dot_network(tmp_path / "dots.onnx", 17, (32, 32))
    asked = []

    class Fallen(onnxruntime.InferenceSession):
        def __init__(self, path: str, options: object, providers: list) -> None:
            asked.append(providers)
            super().__init__(path, options, providers=[PROVIDERS["cpu"]])

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    monkeypatch.setattr(onnxruntime, "cuda_version", "12.8")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ExtractError, match=r"dots\.onnx was to run on CUDA and came up on CPUExecutionProvider") as caught:
        load(path, "cuda", 1)
    said = str(caught.value)
    for part in ("did not load", "(built for CUDA 12.8)", "torch has CUDA 13.0", "gpu for CUDA 13 ", "set device to cpu"):
        assert part in said
    assert "offers" not in said, "CUDA is offered: that is not what is wrong"
    monkeypatch.setattr(onnxruntime, "cuda_version", "")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ExtractError, match=r"which does not say for which CUDA.*torch has no CUDA"):
        load(path, "cuda", 1)
    ((name, options),) = asked[0]
    assert (name, options["device_id"]) == (PROVIDERS["cuda"], 1)
    assert load(path, "cpu").provider == PROVIDERS["cpu"]


def test_without_onnxruntime_the_error_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    says = r"onnxruntime cannot be imported.*-m pip install onnxruntime-gpu.*never both.*restart ComfyUI"
    with pytest.raises(ExtractError, match=says) as caught:
        runtime()
    assert sys.executable in str(caught.value)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "folder"])
def test_a_file_that_is_no_network(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.onnx"
    whole = dot_network(tmp_path / "dots.onnx", 17, (32, 32)).read_bytes()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "text": b"<html>not found</html>", "cut": whole[: len(whole) // 2]}[kind])
    with pytest.raises(ExtractError, match=r"bad\.onnx.*(cannot be loaded as an ONNX network|takes inputs of).*(Delete|get it)"):
        load(path, "cpu")


def test_a_network_that_takes_no_image(tmp_path: Path) -> None:
    graph = Graph()
    graph.add("Identity", "input", name="output")
    path = graph.save(tmp_path / "text.onnx", [1, 77], {"output": (TensorProto.FLOAT, [1, 77])})
    with pytest.raises(ExtractError, match=r"text\.onnx takes inputs of \[\[1, 77\]\], expected one image \(1, 3, height, width\)"):
        load(path, "cpu")
    graph = Graph()
    graph.add("Identity", "input", name="output")
    path = graph.save(tmp_path / "grey.onnx", [1, 1, 8, 8], {"output": (TensorProto.FLOAT, [1, 1, 8, 8])})
    with pytest.raises(ExtractError, match=r"grey\.onnx takes inputs of \[\[1, 1, 8, 8\]\]"):
        load(path, "cpu")


def test_a_network_that_fails_names_itself(tmp_path: Path) -> None:
    network = load(dot_network(tmp_path / "dots.onnx", 17, (32, 32)), "cpu")
    with pytest.raises(ExtractError, match=r"dots\.onnx failed on an input of \(1, 3, 16, 16\)"):
        network(np.zeros((16, 16, 3), np.float32))
    assert network.size == (32, 32)
