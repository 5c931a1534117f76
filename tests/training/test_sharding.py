"""FSDP2, and DDP over weights in 8 bits, of the real backbones at toy dimensions: two processes compute what one does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tests.training.toy_backbones import TEXT, write_hunyuan, write_wan
from training.backbones import get
from training.checkpoint import whole
from training.config import Backbone, Config
from training.lora_file import add_lora, lora_state
from training.train import parallel

CLIP = {"fps": 16, "frames": 5, "lead_in": 0.25, "sizes": [[32, 32]]}


def inputs(name: str, seed: int = 3) -> dict[str, object]:
    """One sample of a composite of 2 x 4 x 8 latents, at a noise level that half precision rounds."""
    generator = torch.Generator().manual_seed(seed)
    channels = 32 if name.startswith("hunyuan") else 16

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    context = {"text": random(1, 6, TEXT)}
    if name.startswith("hunyuan"):
        context |= {"glyph": random(1, 1, 24), "image": random(1, 5, 48)}
        context |= {"text_mask": torch.ones(1, 6, dtype=torch.bool), "glyph_mask": torch.zeros(1, 1, dtype=torch.bool)}
    elif name.startswith("wan2.1"):
        context["image"] = random(1, 5, 48)
    shape = (1, channels, 2, 4, 8)
    known = torch.zeros(1, 1, *shape[2:])
    return {"x": random(*shape), "sigma": torch.tensor([0.9373]), "given": random(*shape), "known": known, "context": context}


def learn(model: torch.nn.Module, backbone: object, name: str, seed: int = 3) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    velocity = backbone.predict(model, **inputs(name, seed))
    velocity.square().mean().backward()
    return velocity.detach(), {key: whole(parameter.grad).clone() for key, parameter in lora_state(model).items()}


def joined(rank: int, port: int) -> Accelerator:
    """One of two processes."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    return Accelerator()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def process(rank: int, folder: str, name: str, port: int) -> None:
    with_halves(rank, folder, name, port)
    parallel.ended("fsdp2")


def with_halves(rank: int, folder: str, name: str, port: int) -> None:
    accelerator = joined(rank, port)
    kind = Backbone(name=name, path=folder)
    train = {"sharding": "fsdp2", "batch": 2, "optimizer": "adamw"}
    settings = Config.model_validate({"out": folder, "clip": CLIP, "backbone": kind.model_dump(), "train": train})
    parallel.check(accelerator, settings)
    backbone = get(kind)
    found = []
    for sharded in (False, True):
        model = backbone.load_transformer()
        torch.manual_seed(0)
        add_lora(model, 4, backbone.family)
        for parameter in lora_state(model).values():
            torch.nn.init.normal_(parameter, std=0.1)
        seen = []
        names = ("time_embedder", "timestep_embedder")
        embedder = next(module for key, module in model.named_modules() if key.endswith(names))
        embedder.register_forward_hook(lambda module, given, out, seen=seen: seen.append(given[0].dtype))
        if sharded:
            blocks = list(getattr(model, "blocks", None) or model.transformer_blocks)
            model = parallel.prepare(accelerator, model, blocks, settings)
            own = sum(p.to_local().numel() for p in model.parameters() if hasattr(p, "to_local"))
            assert own < 0.6 * sum(p.numel() for p in model.parameters()), "each holds a part"
            assert {p.dtype for p in blocks[0].parameters() if p.ndim == 2 and not p.requires_grad} == {torch.bfloat16}
        found.append((*learn(model, backbone, name), seen))
    (velocity, gradients, before), (got, sharded_gradients, after) = found
    assert before == after, "timesteps keep their precision"
    torch.testing.assert_close(got, velocity, atol=1e-5, rtol=1e-4)
    for key, value in gradients.items():
        torch.testing.assert_close(sharded_gradients[key], value, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["wan2.1-i2v-14b", "hunyuanvideo-1.5-i2v"])
def test_two_processes_with_halves_of_a_network_compute_what_one_does(name: str, tmp_path: Path) -> None:
    folder = write_hunyuan(tmp_path / "toy") if name.startswith("hunyuan") else write_wan(tmp_path / "toy")
    torch.multiprocessing.spawn(process, (str(folder), name, free_port()), nprocs=2)


def of_8_bits(rank: int, folder: str, port: int) -> None:
    averaged(rank, folder, port)
    parallel.ended()


def averaged(rank: int, folder: str, port: int) -> None:
    accelerator, name = joined(rank, port), "wan2.1-i2v-14b"
    for base in ("int8", "fp8"):
        kind = Backbone(name=name, path=folder, base=base)
        settings = Config.model_validate({"out": folder, "clip": CLIP, "backbone": kind.model_dump(), "train": {"batch": 2}})
        parallel.check(accelerator, settings)
        backbone, model = get(kind), get(kind).load_transformer()
        torch.manual_seed(rank)  # which of the LoRAs they begin with is the main process's to say
        add_lora(model, 4, backbone.family)
        for parameter in lora_state(model).values():
            torch.nn.init.normal_(parameter, std=0.1)
        both = parallel.prepare(accelerator, model, list(model.blocks), settings)
        backbone.predict(both, **inputs(name, rank)).square().mean().backward()
        together = {key: parameter.grad.clone() for key, parameter in lora_state(model).items()}
        alone = []
        for seed in (0, 1):
            model.zero_grad()
            alone.append(learn(model, backbone, name, seed)[1])
        assert together and all(value.abs().max() > 0 for value in together.values())
        for key, value in together.items():
            torch.testing.assert_close(value, (alone[0][key] + alone[1][key]) / 2, atol=1e-6, rtol=1e-3)


def test_two_processes_with_weights_in_8_bits_average_their_gradients(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(of_8_bits, (str(write_wan(tmp_path / "toy")), free_port()), nprocs=2)
