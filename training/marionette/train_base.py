"""Train the small backbone as an image-to-video model, on single panels and split screens.

    python -m training.marionette.train_base --cache runs/panels --out runs/base

It never sees the method's task, a driver known in every frame: each panel has frames to invent, as inpainting backbones
are trained. In a split screen each panel has its own random known frames, often few in one and up to nine in ten in the
other, and most of them show a clip and its filtered copy or one motion on two characters: attention across panels has a
reason to exist, and to go by place and time. Without such pairs a base of this size does not look into the other panel at
all, and with exact copies it looks for the same colours only, which a skeleton does not have.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from dreamactor_core.words import WordTable, encode_text
from headless.media import write_image
from training.checkpoint import TrainState, update_ema
from training.flow import euler, sample_sigmas, shifted_sigmas
from training.hashing import sha256
from training.marionette.attention import use_plain_attention
from training.marionette.backbone import (
    MODEL_CONFIG,
    MODEL_FILE,
    WORDS_FILE,
    load_model,
    load_vae,
    load_words,
    save_model,
    save_words,
    wan_statistics,
)  # fmt: skip
from training.marionette.panel_heads import place_panel_heads
from training.marionette.panels import CHARACTERS, COPY, fingerprint, load
from training.optimizer import MuonAdamW, muon_dtype, trapezoid_lr
from training.precision import bfloat16_is_native

VALIDATION_SIGMAS = (0.5, 0.75, 0.9, 0.98)
_PAIRS = 16  # of each kind in a validation


@dataclass
class Batch:
    """Latents (B, 16, t, h, w): `clean` is the truth, `given` and `known` (B, 1, t, h, w) what the network is told."""

    clean: torch.Tensor
    given: torch.Tensor
    known: torch.Tensor
    text: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.clean.to(device), self.given.to(device), self.known.to(device), self.text.to(device))


class Panels:
    """Draws batches from the cached panels."""

    def __init__(self, folder: Path, split: str, words: WordTable) -> None:
        tensors, self.texts = load(folder, split)
        self.video, self.first = tensors["video"], tensors["first_frame"]  # (groups, 3, 16, t, h, w)
        self.words = words

    def panel(self, group: int, member: int, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Truth, what is given and its mask of one panel; `known` (t,) says which latent frames are."""
        video, first = self.video[group, member].float(), self.first[group, member].float()
        mask = known.view(1, -1, 1, 1).expand(1, *video.shape[1:])
        return video, torch.where(mask, video, first), mask.float()

    def _known(self, rng: np.random.Generator, rate: float) -> torch.Tensor:
        """The first latent frame and a share of the later ones, never all."""
        t = self.video.shape[3]
        known = torch.from_numpy(rng.random(t) < rate)
        known[int(rng.integers(1, t))] = False
        known[0] = True
        return known

    def draw(self, rng: np.random.Generator, count: int, split_screen: bool, first_only: bool = False) -> Batch:
        """A batch of single panels, or of split screens: of a clip twice (20%), of a clip and its filtered copy (40%), of one
        motion on two characters (25%), of two motions.
        """
        samples, texts = [], []
        for _ in range(count):
            group, another = (int(i) for i in rng.choice(len(self.video), 2, replace=False))
            a, b = (int(i) for i in rng.permutation(CHARACTERS))
            panels = [(group, int(rng.integers(CHARACTERS + 1)))]
            if split_screen:
                kind = rng.random()
                beside = (group, a) if kind < 0.2 else (group, b) if 0.6 <= kind < 0.85 else (another, b)
                panels = [(group, 0), (group, COPY)] if 0.2 <= kind < 0.6 else [(group, a), beside]
                panels = [panels[int(i)] for i in rng.permutation(2)]
            known = [self._known(rng, 0.0 if first_only else rate) for rate in _rates(rng)]
            samples.append([self.panel(*panel, mask) for panel, mask in zip(panels, known, strict=False)])
            text = " and ".join(self.texts[g][member] for g, member in panels)
            texts.append("" if rng.random() < 0.1 else text)
        return self._batch(samples, texts)

    def pairs(self, count: int, member: int, shift: int) -> Batch:
        """Split screens of a character beside a known panel: `member` of its own group, or of the group `shift` further on."""
        samples, texts = [], []
        for group in range(count):
            left = torch.arange(self.video.shape[3]) == 0
            right = torch.ones_like(left)
            samples.append([self.panel(group, 0, left), self.panel((group + shift) % count, member, right)])
            texts.append(self.texts[group][0])
        return self._batch(samples, texts)

    def _batch(self, samples: list[list[tuple[torch.Tensor, ...]]], texts: list[str]) -> Batch:
        stacked = [torch.stack([torch.cat([panel[k] for panel in sample], -1) for sample in samples]) for k in range(3)]
        return Batch(*stacked, encode_text(self.words, texts))


def _rates(rng: np.random.Generator) -> tuple[float, float]:
    """Shares of known later frames in two panels: often one panel knows little and the other much."""
    if rng.random() < 0.4:
        return float(rng.uniform(0, 0.9)), float(rng.uniform(0, 0.9))
    rates = (0.0, float(rng.uniform(0.3, 0.9)))
    return rates if rng.random() < 0.5 else rates[::-1]


def predict(model: torch.nn.Module, x: torch.Tensor, sigma: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The network's velocity for noisy latents x, told what is known: channels are noise, mask (4 times), latents."""
    inputs = torch.cat([x, batch.known.expand(-1, 4, -1, -1, -1), batch.given], 1)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16_is_native(x.device.type)):
        return model(inputs, sigma * 1000, batch.text, return_dict=False)[0].float()


def flow_loss(model: torch.nn.Module, batch: Batch, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean flow-matching loss over whole panels."""
    s = sigma.view(-1, 1, 1, 1, 1)
    return (predict(model, (1 - s) * batch.clean + s * noise, sigma, batch) - (noise - batch.clean)).square().mean()


@torch.no_grad()
def validate(model: torch.nn.Module, data: Panels) -> dict[str, float]:
    """Mean losses at fixed noise levels, on split screens of which only the first frames are known, and of the left panel
    beside a known one: its filtered copy, the same motion, and each of another clip. That is what the network makes of it."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    pairs = {
        "copy": data.pairs(_PAIRS, COPY, 0), "another_copy": data.pairs(_PAIRS, COPY, 1),
        "same_motion": data.pairs(_PAIRS, 1, 0), "another_motion": data.pairs(_PAIRS, 1, 1),
    }  # fmt: skip
    losses: dict[str, list[float]] = {name: [] for name in ("validation_loss", *pairs)}
    for level in VALIDATION_SIGMAS:
        batch = data.draw(rng, _PAIRS, True, first_only=True)
        noise, sigma = torch.randn(batch.clean.shape, generator=generator), torch.full((_PAIRS,), level)
        losses["validation_loss"].append(float(flow_loss(model, batch, sigma, noise)))
        for name, pair in pairs.items():
            x = (1 - level) * pair.clean + level * noise
            error = predict(model, x, sigma, pair) - (noise - pair.clean)
            losses[name].append(float(error[..., : error.shape[-1] // 2].square().mean()))
    return {name: round(float(np.mean(values)), 4) for name, values in losses.items()}


@torch.no_grad()
def sample_sheet(model: torch.nn.Module, vae: AutoencoderKLWan, data: Panels, path: Path) -> None:
    """Three sampled split screens from their first frames, each under its truth."""
    batch = data.draw(np.random.default_rng(1), 3, True, first_only=True)
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(1))
    result = euler(lambda x, sigma: predict(model, x, sigma, batch), noise, shifted_sigmas(12, 5.0))
    mean, std = wan_statistics(vae)
    rows = []
    for latents in (batch.clean, result):
        video = (vae.decode(latents * std + mean).sample.clamp(-1, 1) + 1) * 127.5
        rows.append(video.permute(0, 2, 3, 4, 1)[:, ::4].numpy().astype(np.uint8))
    sheet = np.concatenate([np.concatenate(list(row[k]), 1) for k in range(3) for row in rows], 0)
    write_image(path, sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an earlier state in it is resumed")
    parser.add_argument("--init", action="store_true", help="start from the shipped weights instead of nothing")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=12, help="split screens a step; single panels come two for one")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints, validations and sheets")
    parser.add_argument("--compile", action="store_true", help="compile the blocks: faster, needs a C++ compiler on the CPU")
    parser.add_argument("--export", action="store_true", help="at the end, put the weights over the shipped ones")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        use_plain_attention()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    if not WORDS_FILE.exists():
        save_words()
    words, vae = load_words(), load_vae()
    train, held_out = Panels(args.cache, "train", words), Panels(args.cache, "validation", words)
    if min(len(train.video), len(held_out.video)) < _PAIRS:
        raise ValueError(
            f"{args.cache} holds {len(train.video)} groups of panels for training and {len(held_out.video)} for validation, "
            f"expected at least {_PAIRS} each; run python -m training.marionette.panels --out {args.cache} --split train, "
            f"and --split validation"
        )
    if args.init:
        model = load_model()
    else:
        model = WanTransformer3DModel(**MODEL_CONFIG)
        place_panel_heads(model, train.video.shape[-1] // model.config.patch_size[2])
    model.to(device)
    averaged = {k: v.detach().clone() for k, v in model.state_dict().items()}
    shadow = WanTransformer3DModel(**MODEL_CONFIG)
    optimizer = MuonAdamW(model, args.lr, adamw_only=("condition_embedder", "proj_out", "patch_embedding"), weight_decay=0.01)
    run = {
        "batch": args.batch, "lr": args.lr, "seed": args.seed, "init_sha256": sha256(MODEL_FILE) if args.init else "",
        "dataset_sha256": fingerprint(args.cache, "train"), "muon": muon_dtype(model.device),
    }  # fmt: skip
    state = TrainState({"model": model}, optimizer.parts, {"model": averaged}, run, args.steps)
    checkpoint = args.out / "state.safetensors"
    first = state.load(checkpoint) if checkpoint.exists() else 0
    if args.compile:
        for block in model.blocks:
            block.compile()
    log, started, losses = (args.out / "log.jsonl").open("a"), time.time(), []
    for step in range(first, args.steps):
        optimizer.set_lr(trapezoid_lr(step, args.steps, args.lr))
        rng, generator = np.random.default_rng([args.seed, step]), torch.Generator().manual_seed(args.seed * 10**6 + step)
        single = step % 8 == 7
        batch = train.draw(rng, args.batch * 2 if single else args.batch, not single)
        batch = batch.to(device)
        sigma = sample_sigmas(len(batch.clean), generator, 1.0, 1.2).to(device)
        noise = torch.randn(batch.clean.shape, generator=generator).to(device)
        loss = flow_loss(model, batch, sigma, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_ema(averaged, model, min(0.998, (step + 1) / (step + 10)))
        losses.append(float(loss.detach()))
        if (step + 1) % 50 == 0:
            line = {"step": step + 1, "loss": round(float(np.mean(losses[-50:])), 4),
                    "s_per_step": round((time.time() - started) / (step + 1 - first), 3)}  # fmt: skip
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            state.save(checkpoint, step + 1)
            shadow.load_state_dict({k: v.cpu() for k, v in averaged.items()})
            save_model(shadow.state_dict(), args.out / MODEL_FILE.name)
            line = {"step": step + 1, **validate(shadow, held_out)}
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            if (step + 1) % (4 * args.every) == 0 or step + 1 == args.steps:
                sample_sheet(shadow, vae, held_out, args.out / f"samples_{step + 1:05d}.png")
    if args.export:
        save_model({k: v.cpu() for k, v in averaged.items()}, MODEL_FILE)


if __name__ == "__main__":
    main()
