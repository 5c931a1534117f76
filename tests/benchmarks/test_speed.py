"""The speed benchmark, at its smallest."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from benchmarks.speed import __main__ as speed
from benchmarks.speed import clocks, graphs, host, large, network
from benchmarks.speed.clocks import Clock
from dreamactor_core.contract import Contract
from dreamactor_core.motion_context import CONTEXTS
from headless.client import Progress, by_title
from headless.media import read_image
from training.plan import costs
from training.plan import network as networks


def test_steps_are_timed_by_their_number_not_by_the_messages() -> None:
    times = iter([8.0, 9.0, 10.0, 10.9, 11.2, 12.0])
    clock = Clock(lambda: next(times))
    for title, value in (("Skeleton", 0), ("Sampler", 0), ("Sampler", 1), ("Sampler", 4), ("Sampler", 5), ("Decode", 0)):
        clock(Progress("5", title, value, 5))  # messages of two steps were left out
    assert clock.step() == pytest.approx(0.3)
    assert clock.before_first() == 1
    clock.ended = 15.0
    assert clock.nodes() == pytest.approx({"Skeleton": 1, "Sampler": 3, "Decode": 3})


def test_the_most_memory_is_seen_and_a_failure_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_LOOKS", 0.001)
    said, seen = iter([3.0, 7.0, 5.0]), threading.Event()

    def used() -> float:
        value = next(said, None)
        if value is None:
            seen.set()
        return value or 0.0

    with clocks.Memory(used) as memory:
        assert seen.wait(10)
    assert memory.most == 7
    asked = threading.Event()

    def failing() -> float:
        asked.set()
        return 1 / 0

    with pytest.raises(ZeroDivisionError), clocks.Memory(failing):
        assert asked.wait(10)


def test_memory_in_use_is_without_what_torch_keeps() -> None:
    # of 24 GB one is another program's; torch has taken ten and uses six of them
    host = {"type": "cuda", "vram_total": 24e9, "vram_free": 13e9 + 4e9, "torch_vram_free": 4e9}
    client = SimpleNamespace(system_stats=lambda: {"devices": [host]})
    assert clocks.has_gpu_bytes(client) and clocks.gpu_bytes(client) == 7e9
    host["type"] = "cpu"
    assert not clocks.has_gpu_bytes(client)


def test_all_graphs_sample_as_many_frames(tmp_path: Path) -> None:
    graphs.write_loras(tmp_path)
    made = graphs.step_graphs((64, 96, 25), 0, 4)
    assert made.keys() == {"plain", *CONTEXTS}
    for name, graph in made.items():
        conditioning = by_title(graph, "In-context conditioning")["inputs"]
        assert [conditioning[key] for key in ("width", "height", "length")] == [64, 96, 25]
        if name != "plain":
            file = by_title(graph, "Motion LoRA")["inputs"]["lora_name"]
            with safe_open(tmp_path / file, "pt") as opened:
                assert Contract.from_metadata(opened.metadata()).motion_context == name


def test_the_real_size_has_the_share_of_attention_of_a_large_network() -> None:
    shares = []
    shapes = large.LARGE, large.HALF
    wide = [dict(num_attention_heads=s.width // 128, ffn_dim=s.inner, num_layers=s.layers) for s in shapes]
    wan, small = ("wan2.1-i2v-14b", "marionette")
    for name, more, size in ((wan, wide[0], shapes[0].size), (small, {}, host.SIZES[-1]), (wan, wide[1], shapes[1].size)):
        net = networks.network(name, networks.RELEASED[name] | more)
        tokens = costs.video_tokens(net, *size, None)
        shares.append(net.layers * 4 * tokens**2 * net.width / costs.flops(net, tokens, 0, False).forward)
    assert shares[0] == pytest.approx(shares[1], abs=0.03) and shares[0] == pytest.approx(shares[2], abs=0.03)


def test_every_row_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(host, "SIZES", ((64, 96, 9),))
    monkeypatch.setattr(host, "WHOLE_SIZE", (64, 96, 13))
    monkeypatch.setattr(host, "VAE_SIZES", ((32, 64, 9), (32, 64, 13)))
    monkeypatch.setattr(host, "HALF", large.Shape(1024, 512, 3, (64, 96, 9)))
    monkeypatch.setattr(host, "LARGE", host.HALF)
    monkeypatch.setattr(host, "ROUNDS", 1)
    monkeypatch.setattr(host, "VAE_ROUNDS", 1)
    monkeypatch.setattr(network, "CLIPS", 6)
    monkeypatch.setattr(network, "ROUNDS", 1)
    monkeypatch.setattr(speed.pose_draw, "FRAMES", 3)
    out, drawn = tmp_path / "speed.json", tmp_path / "speed.png"
    monkeypatch.setattr(sys, "argv", ["speed", "--json", str(out), "--plot", str(drawn), "--layers", "2"])
    speed.main()
    found = json.loads(out.read_text())
    assert found["step_ratio"].keys() == CONTEXTS.keys() and set(found["vae_ratio"]) == set(graphs.DISTINCT)
    assert all(value > 0 for key in ("step_ratio", "vae_ratio") for value in found[key].values())
    assert [row["frames"] for row in found["rows"] if row["what"] == "vae"] == [9, 13]
    rows = {row["what"]: row for row in found["rows"]}
    assert found["vae_ratio"]["cached"] == rows["vae"]["ratios"]["cached"]["median"]
    assert list(rows) == ["vae", "step", "whole", "large", "train", "pose_draw"]
    assert rows["large"]["network"] == {"width": 1024, "inner": 512, "layers": 2}
    assert found["step_ratio"]["joint"] == rows["large"]["ratios"]["joint"]["median"]
    assert (rows["step"]["frames"], rows["step"]["tokens"]) == (9, 3 * 6 * 4)
    for name, split in rows["whole"]["split"].items():
        assert split.keys() >= {"Small backbone", "In-context conditioning", "Sampler", "Decode"}, f"{name}: something was kept"
        assert sum(split.values()) == pytest.approx(1, abs=0.02), name
    assert rows["whole"]["driver_pass"].keys() == {"cached", "cached_near"}
    assert ("memory" in rows["whole"]) == torch.cuda.is_available()
    assert all(value["median"] > 0.5 for value in rows["train"]["bare"].values()), "a step is not without the network's passes"
    assert rows["train"]["ratios"].keys() == CONTEXTS.keys()
    assert rows["pose_draw"]["dwpose"]["median"] > 0
    assert read_image(drawn).shape[2] == 3
    assert "driver pass" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "value", "least"), [("--seed", "-1", "0"), ("--layers", "0", "1")])
def test_too_few_are_refused(
    option: str, value: str, least: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", option, value])
    with pytest.raises(SystemExit):
        speed.main()
    assert f"{option} is {value}, expected {least} or more" in capsys.readouterr().err
