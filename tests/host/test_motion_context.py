"""Cached motion contexts: the host computes what training computes, once a clip, and nothing goes with the wrong LoRA."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from inside import sample, spied
from safetensors.torch import save_file
from toys import FPS, LEAD_IN, contract, lora, small_feed_forward

from dreamactor_core.layout import get_layout
from dreamactor_core.motion_context import CONTEXTS
from training import backbones, config
from training.lora_file import add_lora, load_lora, rank_of
from training.sampling import sample as training_sample

CACHED = [name for name, context in CONTEXTS.items() if context.cached]
LENGTH, WIDTH, HEIGHT = 17, 32, 64  # 5 latent frames: more than a neighbourhood
TEXT = "a human waves"


@pytest.fixture(scope="module")
def base(pack: ModuleType) -> SimpleNamespace:
    """The small backbone without a LoRA."""
    with torch.inference_mode():
        model, clip, vae = pack.nodes.loaders.SmallBackboneLoader.execute().args
    return SimpleNamespace(model=model, clip=clip, vae=vae)


def lora_of(shelf: Path, context: str, scale: float = 1.0, seed: int = 0) -> Path:
    path = shelf / "loras" / f"{context}_{scale}_{seed}.safetensors"
    if not path.exists():
        about = contract("marionette") | {"dreamactor_m2.motion_context": context}
        save_file(lora(small_feed_forward(), scale=scale, seed=seed), path, about)
    return path


def loaded(pack: ModuleType, base: SimpleNamespace, path: Path) -> Any:
    with torch.inference_mode():
        return pack.nodes.loaders.LoraLoader.execute(base.model, path.name, 1.0).args[0]


def conditioned(
    pack: ModuleType, base: SimpleNamespace, toys: ModuleType, model: Any, seed: int = 2, length: int = LENGTH, **more: Any
) -> SimpleNamespace:
    import nodes

    reference, driver = toys.moving_pattern(1, HEIGHT, WIDTH, 3, 1), toys.moving_pattern(length, HEIGHT, WIDTH, 3, seed)
    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(base.clip, words)[0] for words in (TEXT, "")]
        made = pack.nodes.conditioning.InContextConditioning.execute(
            *texts, model, base.vae, torch.as_tensor(reference), torch.as_tensor(driver), WIDTH, HEIGHT, length, FPS,
            LEAD_IN / FPS, "letterbox", **more,
        ).args  # fmt: skip
    names = ("positive", "negative", "latent", "composite", "mask", "info")
    return SimpleNamespace(**dict(zip(names, made, strict=True)))


@pytest.mark.parametrize("context", CACHED)
def test_the_host_samples_what_training_samples(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, context: str
) -> None:
    path = lora_of(shelf, context)
    model = loaded(pack, base, path)
    given = conditioned(pack, base, toy_nodes, model)
    got = sample(model, given.positive, given.negative, given.latent, 4)["samples"]
    assert got.shape == (1, 16, 5, HEIGHT // 8, WIDTH // 8), "as wide as the result"

    trainer = backbones.get(config.Backbone(name="marionette", dtype="float32"))
    network = trainer.load_transformer()
    layout = get_layout("spatial", context)
    trainer.use_context(network, layout.context)
    add_lora(network, rank_of(path))
    load_lora(network, path, trainer.rename)
    values = given.positive[0][1]
    motion = values["model_conds"][pack.nodes.motion_context.MOTION].cond[0]
    text = trainer.collate([{"text": given.positive[0][0][0], "motion": motion}])
    latents = model.model.process_latent_in(values["concat_latent_image"])
    shift = model.get_model_object("model_sampling").shift
    expected = training_sample(trainer, network, layout, latents, text, 4, shift, [7])
    difference = (model.model.process_latent_in(got) - expected).abs().max()
    assert difference <= 1e-3, f"the largest difference is {float(difference):.1e}"
    other = text | {"motion": -text["motion"]}
    assert (training_sample(trainer, network, layout, latents, other, 4, shift, [7]) - expected).abs().max() > 0.05, "it is seen"
