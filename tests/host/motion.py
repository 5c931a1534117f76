"""Runs of the small backbone with cached motion contexts in this process, for the tests in here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from toys import FPS, LEAD_IN, contract, lora, small_feed_forward

LENGTH, WIDTH, HEIGHT = 17, 32, 64  # 5 latent frames: more than a neighbourhood
TEXT = "a human waves"
VIDEO = 5 * (HEIGHT // 16) * (WIDTH // 16)
"""Tokens of the result; as many are the driver's at its full size."""


def lora_of(shelf: Path, context: str, scale: float = 1.0, seed: int = 0) -> Path:
    """A random LoRA of that motion context."""
    path = shelf / "loras" / f"{context}_{scale}_{seed}.safetensors"
    if not path.exists():
        about = contract("marionette") | {"dreamactor_m2.motion_context": context}
        save_file(lora(small_feed_forward(), scale=scale, seed=seed), path, about)
    return path


def loaded(pack: ModuleType, base: SimpleNamespace, path: Path) -> Any:
    """MODEL with that LoRA."""
    with torch.inference_mode():
        return pack.nodes.loaders.LoraLoader.execute(base.model, path.name, 1.0).args[0]


def conditioned(
    pack: ModuleType, base: SimpleNamespace, toys: ModuleType, model: Any, seed: int = 2, length: int = LENGTH, reference: int = 1,
    **more: Any,
) -> SimpleNamespace:  # fmt: skip
    """What In-Context Conditioning makes of patterns drawn by `seed` and `reference`."""
    import nodes

    picture, driver = toys.moving_pattern(1, HEIGHT, WIDTH, 3, reference), toys.moving_pattern(length, HEIGHT, WIDTH, 3, seed)
    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(base.clip, words)[0] for words in (TEXT, "")]
        made = pack.nodes.conditioning.InContextConditioning.execute(
            *texts, model, base.vae, torch.as_tensor(picture), torch.as_tensor(driver), WIDTH, HEIGHT, length, FPS,
            LEAD_IN / FPS, "letterbox", FPS, **more,
        ).args  # fmt: skip
    names = ("positive", "negative", "latent", "composite", "mask", "info")
    return SimpleNamespace(**dict(zip(names, made, strict=True)))


def passes(model: Any) -> tuple[Any, list[int]]:
    """A clone of a MODEL, and a list that gets the number of keys of every attention: with one for text and one for the video in
    each block, a pass of the driver is told by its few keys."""
    seen: list[int] = []

    def note(attention: Any, q: torch.Tensor, k: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.append(k.shape[1])
        return attention(q, k, *rest, **more)

    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = note
    return clone, seen


def run(model: Any, given: SimpleNamespace, seed: int = 7, cfg: float = 1.0, latent: dict | None = None) -> torch.Tensor:
    """The stock KSampler: latents after three steps."""
    import nodes

    latent, steps = given.latent if latent is None else latent, 3
    with torch.inference_mode():
        made = nodes.common_ksampler(model, seed, steps, cfg, "euler", "simple", given.positive, given.negative, latent)
    return made[0]["samples"]


def blocks_of(model: Any) -> int:
    """How many blocks its network has."""
    return len(model.model.diffusion_model.blocks)
