"""Train a pose or rgb LoRA of the method on the small backbone.

    python -m training.marionette.train_lora pose --cache runs/cache --out runs/pose
    python -m training.marionette.train_lora rgb --cache runs/cache --out runs/rgb

Only the feed-forward layers learn. The loss is taken on the generated half; the driver's half is shown at the same
noise level, as the sampler shows it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open

from dreamactor_core.contract import Contract
from dreamactor_core.layout import SpatialLayout
from dreamactor_core.words import WordTable, encode_text
from headless.media import write_image
from training.checkpoint import TrainState, update_ema
from training.flow import euler, sample_sigmas, shifted_sigmas
from training.lora_file import add_lora, load_lora, lora_state, save_lora, sha256
from training.marionette import cache
from training.marionette.attention import use_plain_attention
from training.marionette.backbone import LORA_FOLDER, MODEL_FILE, load_model, load_vae, load_words, wan_statistics
from training.marionette.train_base import VALIDATION_SIGMAS, Batch, predict
from training.marionette.world import HEIGHT, WIDTH
from training.native import wan_transformer_key
from training.optimizer import MuonAdamW, trapezoid_lr

LAYOUT = SpatialLayout()


def contract_for(variant: str, parent: Path | None = None, dataset_sha256: str = "") -> Contract:
    """What the file will say of itself; `parent` is the LoRA of a warm start."""
    return Contract(
        variant=variant, backbone="marionette", fps=float(cache.FPS), lead_in=cache.LEAD_IN / cache.FPS, frames=cache.FRAMES,
        sizes=f"{WIDTH}x{HEIGHT}", skeleton="openpose18" if variant == "pose" else "",
        pairs="self" if variant == "pose" else "ground_truth", backbone_sha256=sha256(MODEL_FILE),
        parent_sha256=sha256(parent) if parent else "", dataset_sha256=dataset_sha256,
    )  # fmt: skip


def _check_parent(path: Path, variant: str) -> None:
    """Raises ValueError for a LoRA of another backbone than the one it is to go on with, or an rgb LoRA as the start of a pose
    LoRA: the paper's order is pose first."""
    with safe_open(path, "pt") as file:
        contract = Contract.from_metadata(file.metadata(), path.name)
    if variant == "pose" and contract.variant != "pose":
        raise ValueError(f"{path} is a LoRA of variant {contract.variant}, expected pose: a pose LoRA comes before the rgb LoRA")
    found, expected = contract.backbone_sha256, sha256(MODEL_FILE)
    if found != expected:
        raise ValueError(
            f"{path} was trained on a backbone with sha256 {found or 'not stated'}, expected that of {MODEL_FILE.name}, "
            f"{expected}: train the LoRA of the warm start again on this backbone first"
        )


class Composites:
    """Cached composites: `condition` (N, 16, t, h, 2w) is Z, `target` (N, 16, t, h, w) the true animation."""

    def __init__(self, folder: Path, kind: str, split: str, words: WordTable) -> None:
        tensors, texts = cache.load(folder, kind, split)
        self.condition, self.target = tensors["condition"], tensors["target"]
        self.texts, self.words = [t[0] for t in texts], words
        self.folder, self.kind, self.split = folder, kind, split

    def require(self, count: int) -> None:
        """Raises ValueError when there are fewer samples than that."""
        if len(self.target) < count:
            raise ValueError(
                f"{self.folder} holds {len(self.target)} {self.kind} {self.split} samples, expected at least {count}; run python "
                f"-m training.marionette.cache {self.kind} --out {self.folder} --split {self.split} --count {count}"
            )

    def batch(self, indices: np.ndarray, drivers: np.ndarray | None = None, drop_text: bool = False) -> Batch:
        """Samples; with `drivers`, each with another sample's driver in its right half."""
        given, target = self.condition[indices].float(), self.target[indices].float()
        t, h, w = target.shape[2:]
        if drivers is not None:
            given = torch.cat([given[..., :w], self.condition[drivers].float()[..., w:]], -1)
        known = LAYOUT.known_mask(t, h, w).expand(len(indices), -1, -1, -1, -1)
        texts = ["" if drop_text else self.texts[i] for i in indices]
        return Batch(LAYOUT.join(target, given[..., w:]), given, known, encode_text(self.words, texts))


def generated_loss(model: torch.nn.Module, batch: Batch, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Flow-matching loss on the generated half, (B,)."""
    s = sigma.view(-1, 1, 1, 1, 1)
    error = predict(model, (1 - s) * batch.clean + s * noise, sigma, batch) - (noise - batch.clean)
    return LAYOUT.crop(error).square().mean((1, 2, 3, 4))


@torch.no_grad()
def validate(model: torch.nn.Module, data: Composites, count: int = 32) -> tuple[float, float]:
    """Loss at fixed noise levels with the right driver, and with another clip's: a model that follows needs the right one."""
    indices = np.arange(min(count, len(data.target)))
    batches = [data.batch(indices, drivers).to(model.device) for drivers in (None, np.roll(indices, 1))]
    generator = torch.Generator().manual_seed(0)
    losses = np.zeros((2, len(VALIDATION_SIGMAS)))
    for k, sigma in enumerate(VALIDATION_SIGMAS):
        noise = torch.randn(batches[0].clean.shape, generator=generator).to(model.device)
        for row, batch in enumerate(batches):
            losses[row, k] = float(generated_loss(model, batch, torch.full((len(indices),), sigma).to(noise), noise).mean())
    right, other = losses.mean(1)
    return float(right), float(other)


@torch.no_grad()
def sample(model: torch.nn.Module, batch: Batch, steps: int, shift: float, seed: int) -> torch.Tensor:
    """Composite latents sampled with the driver's half pinned, as the nodes' noise mask has it."""
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(seed)).to(batch.clean)
    generate = LAYOUT.generated_mask(*LAYOUT.crop(batch.clean).shape[2:]).to(batch.clean)

    def pin(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.where(generate > 0, x, (1 - sigma) * batch.given + sigma * noise)

    return euler(lambda x, sigma: predict(model, x, sigma, batch), noise, shifted_sigmas(steps, shift), pin)


@torch.no_grad()
def sample_sheet(model: torch.nn.Module, vae: AutoencoderKLWan, data: Composites, path: Path) -> None:
    """Four sampled composites under their truth."""
    batch = data.batch(np.arange(4)).to(model.device)
    mean, std = wan_statistics(vae)
    rows = []
    for latents in (batch.clean, sample(model, batch, 12, 5.0, 1)):
        video = (vae.decode(latents.cpu() * std + mean).sample.clamp(-1, 1) + 1) * 127.5
        rows.append(video.permute(0, 2, 3, 4, 1)[:, ::4].numpy().astype(np.uint8))
    sheet = np.concatenate([np.concatenate(list(row[k]), 1) for k in range(4) for row in rows], 0)
    write_image(path, sheet)


def named(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of peft, which a ParameterDict does not take for their dots."""
    return {key.replace("/", "."): value for key, value in stored.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=["pose", "rgb"])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an earlier state in it is resumed")
    parser.add_argument("--init-lora", type=Path, help="warm start from this LoRA")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints, validations and sheets")
    parser.add_argument("--compile", action="store_true", help="compile the blocks: faster, needs a C++ compiler on the CPU")
    parser.add_argument("--export", action="store_true", help="at the end, put the LoRA over the shipped one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        use_plain_attention()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    words, vae = load_words(), load_vae()
    # now: the parent's file may be written over
    contract = contract_for(args.variant, args.init_lora, cache.fingerprint(args.cache, args.variant, "train"))
    file = f"marionette_{args.variant}.safetensors"
    train, held_out = (Composites(args.cache, args.variant, split, words) for split in ("train", "validation"))
    train.require(args.batch)
    held_out.require(4)  # the sample sheet's
    model = load_model()
    add_lora(model, args.rank)
    if args.init_lora:
        _check_parent(args.init_lora, args.variant)
        load_lora(model, args.init_lora, wan_transformer_key)
    model.to(device)
    trained = lora_state(model)
    averaged = {k: v.detach().clone() for k, v in trained.items()}
    adapter = torch.nn.ParameterDict({k.replace(".", "/"): v for k, v in trained.items()})
    ema = {k.replace(".", "/"): v for k, v in averaged.items()}
    optimizer = MuonAdamW(adapter, args.lr)
    run = {
        "variant": args.variant, "rank": args.rank, "batch": args.batch, "lr": args.lr, "seed": args.seed,
        "backbone_sha256": contract.backbone_sha256, "parent_sha256": contract.parent_sha256,
        "dataset_sha256": contract.dataset_sha256,
    }  # fmt: skip
    state = TrainState({"lora": adapter}, optimizer.parts, {"lora": ema}, run, args.steps)
    checkpoint = args.out / "state.safetensors"
    first = state.load(checkpoint) if checkpoint.exists() else 0
    if args.compile:
        for block in model.blocks:
            block.compile()
    log, started, losses = (args.out / "log.jsonl").open("a"), time.time(), []
    for step in range(first, args.steps):
        optimizer.set_lr(trapezoid_lr(step, args.steps, args.lr))
        rng, generator = np.random.default_rng([args.seed, step]), torch.Generator().manual_seed(args.seed * 10**6 + step)
        batch = train.batch(rng.choice(len(train.target), args.batch, replace=False), drop_text=bool(rng.random() < 0.1))
        batch = batch.to(device)
        sigma = sample_sigmas(args.batch, generator, 1.5, 1.0).to(device)
        noise = torch.randn(batch.clean.shape, generator=generator).to(device)
        loss = generated_loss(model, batch, sigma, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        update_ema(ema, adapter, min(0.995, (step + 1) / (step + 10)))
        losses.append(float(loss.detach()))
        if (step + 1) % 25 == 0:
            line = {"step": step + 1, "loss": round(float(np.mean(losses[-25:])), 4),
                    "s_per_step": round((time.time() - started) / (step + 1 - first), 3)}  # fmt: skip
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            state.save(checkpoint, step + 1)
            save_lora(named(ema), args.out / file, contract, wan_transformer_key)
            live = {k: v.detach().clone() for k, v in trained.items()}
            with torch.no_grad():
                for k, v in trained.items():
                    v.copy_(ema[k.replace(".", "/")])
            right, other = validate(model, held_out)
            line = {"step": step + 1, "validation_loss": round(right, 4), "with_another_driver": round(other, 4)}
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            if (step + 1) % (4 * args.every) == 0 or step + 1 == args.steps:
                sample_sheet(model, vae, held_out, args.out / f"samples_{step + 1:05d}.png")
            with torch.no_grad():
                for k, v in trained.items():
                    v.copy_(live[k])
    if args.export:
        save_lora(named(ema), LORA_FOLDER / file, contract, wan_transformer_key)


if __name__ == "__main__":
    main()
