"""Train the small Wan 2.1 VAE on the drawn world.

    python -m training.marionette.train_vae --out runs/vae
    python -m training.marionette.train_vae --out runs/vae_decoder --decoder-of models/vae/marionette_vae.safetensors

The second goes on with a decoder alone: latents stay what they are, and so do the networks and LoRAs that learnt from them (caches
name the VAE's file, and are to be made again). The network is diffusers' AutoencoderKLWan at base dimension 16, which is the module
that the stock loaders know.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanCausalConv3d, WanResidualBlock
from safetensors import SafetensorError
from safetensors.torch import save

from dreamactor_core.poses import from_body_joints
from dreamactor_core.skeleton import draw_skeleton
from headless.media import write_image
from training.checkpoint import TrainState, update_ema
from training.marionette.backbone import VAE_CONFIG, VAE_FILE, encode, load_vae, match_wan_statistics, save_vae
from training.marionette.world import HEIGHT, WIDTH, Split, rng_for, sample_scene
from training.optimizer import MuonAdamW, cosine_lr, muon_dtype
from training.precision import bfloat16_is_native


def sample_clip(split: Split, index: int, frames: int) -> torch.Tensor:
    """A training clip in [-1, 1], shape (3, frames, H, W).

    What the composites of the method are made of: panels (six in ten), skeletons, and clips whose frames are blank
    (zero) after the first or before some frame.
    """
    rng = rng_for(split, 1, index)
    kind = rng.choice(["panel", "skeleton", "after_first", "lead_in"], p=[0.64, 0.16, 0.1, 0.1])
    bipeds = ["human", "cartoon"]
    plan = str(rng.choice(bipeds if kind == "skeleton" else [*bipeds, "quadruped", "bird"]))
    scene = sample_scene(rng, plan, frames=frames, lead=None)
    if kind == "skeleton" or (kind == "lead_in" and plan in bipeds and rng.random() < 0.7):
        pixels = draw_skeleton(from_body_joints(scene.keypoints(), HEIGHT, WIDTH), HEIGHT, WIDTH)
    else:
        pixels, _ = scene.draw()
    clip = torch.from_numpy(pixels).permute(3, 0, 1, 2).float() / 127.5 - 1
    if kind == "after_first":
        clip[:, 1:] = 0
    elif kind == "lead_in":
        clip[:, : int(rng.integers(1, frames + 1))] = 0
    return clip


@torch.no_grad()
def initialise(vae: AutoencoderKLWan) -> None:
    """Start from a chain of orthogonal convolutions that treats every frame alone.

    With the library's initialisation the residual branches drown the picture, and hundreds of steps pass before
    anything but the mean colour gets through.
    """
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            out, inside, _, high, wide = module.weight.shape
            flat = torch.nn.init.orthogonal_(torch.empty(out, inside * high * wide))
            module.weight.zero_()
            module.weight[:, :, -1] = flat.view(out, inside, high, wide)  # the last tap is the present frame
            module.bias.zero_()
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.orthogonal_(module.weight)
            module.bias.zero_()
    for name, module in vae.named_modules():
        if name.endswith("time_conv"):  # every frame keeps its features when clips come in after single frames
            eye = torch.eye(module.weight.shape[1])
            module.weight.zero_()
            module.weight[:, :, -1, 0, 0] = eye.repeat(module.weight.shape[0] // len(eye), 1)
        elif isinstance(module, WanResidualBlock):
            module.conv2.weight.zero_()
        elif isinstance(module, WanAttentionBlock):
            module.proj.weight.zero_()
    vae.quant_conv.bias[VAE_CONFIG["z_dim"] :] = -6.0  # little noise at first: at unit variance nothing gets through


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """`vae.decode` without its clamp to [-1, 1], behind which a saturated pixel has no gradient."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    chunks = []
    for i in range(hidden.shape[2]):
        vae._conv_idx = [0]
        chunks.append(
            vae.decoder(hidden[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
        )
    vae.clear_cache()
    return torch.cat(chunks, 2)


@torch.no_grad()
def validate(vae: AutoencoderKLWan, count: int, frames: int) -> tuple[float, np.ndarray]:
    """PSNR in dB over `count` validation clips (of [0, 1] pixels), and a picture of them above their reconstructions."""
    errors, rows = [], []
    for index in range(count):
        clip = sample_clip("validation", index, frames)[None].to(vae.device)
        result = vae.decode(vae.encode(clip).latent_dist.mode()).sample.clamp(-1, 1)
        errors.append(float(((result - clip) / 2).square().mean()))
        for video in (clip, result):
            picture = (video[0].cpu().permute(1, 2, 3, 0)[:: max(1, frames // 5)] + 1) * 127.5
            rows.append(np.concatenate(list(picture.numpy().astype(np.uint8)), 1))
    half = len(rows) // 2
    picture = np.concatenate([np.concatenate(rows[:half], 0), np.concatenate(rows[half:], 0)], 1)
    return -10 * math.log10(float(np.mean(errors))), picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an earlier state in it is resumed")
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--picture-steps", type=int, help="steps on single frames before clips (600; with --decoder-of none)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=9, help="frames a clip, 4n+1")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--kl", type=float, default=1e-5, help="weight of the mean KL divergence per latent value")
    parser.add_argument("--decoder-of", type=Path, help="go on with this VAE's decoder; its encoder stays as it is")
    parser.add_argument("--export", action="store_true", help="put the weights over the shipped ones: caches must be made again")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.decoder_of and args.picture_steps:
        parser.error(f"--picture-steps is {args.picture_steps}, expected none with --decoder-of, whose decoder knows pictures")
    if args.picture_steps is None:
        args.picture_steps = 0 if args.decoder_of else 600
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    vae = AutoencoderKLWan(**VAE_CONFIG)
    if args.decoder_of:
        try:
            vae.load_state_dict(load_vae(args.decoder_of).state_dict())
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            expected = "expected a VAE of this shape, which an earlier run saved"
            parser.error(f"--decoder-of is {args.decoder_of}, which can't be read ({str(error).strip()[:300]}), {expected}")
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    else:
        initialise(vae)
    vae.to(device)
    optimizer = MuonAdamW(vae, lr=args.lr)
    ema = {k: v.detach().clone() for k, v in vae.state_dict().items()}
    names = ("batch", "frames", "steps", "picture_steps", "lr", "kl", "seed")  # steps: its schedule has no flat part to lengthen
    run = {name: getattr(args, name) for name in names} | {"muon": muon_dtype(vae.device)}
    if args.decoder_of:  # of what stays, as --export may put the result into the file's place
        encoder = {key: value for key, value in vae.state_dict().items() if key.startswith(("encoder.", "quant_conv."))}
        run["encoder_sha256"] = hashlib.sha256(save(encoder)).hexdigest()
    state = TrainState({"vae": vae}, optimizer.parts, {"vae": ema}, run)
    checkpoint = args.out / "state.safetensors"
    args.out.mkdir(parents=True, exist_ok=True)
    first = state.load(checkpoint) if checkpoint.exists() else 0
    log = (args.out / "log.jsonl").open("a")
    started = time.time()
    for step in range(first, args.steps):
        optimizer.set_lr(cosine_lr(step, args.steps, args.lr))
        # pictures first, then clips: frames are learned eight at a time, and motion on top of them
        pictures = step < args.picture_steps
        batch, frames = (args.batch * args.frames // 2, 1) if pictures else (args.batch, args.frames)
        clips = [sample_clip("train", step * 64 + k, frames) for k in range(batch)]
        clip = torch.stack(clips).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_is_native(device.type)):
            posterior = vae.encode(clip).latent_dist
            # an encoder that stays is met as the networks meet it, by its mean
            result = decode(vae, posterior.mode() if args.decoder_of else posterior.sample())
        difference = result.float() - clip
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = difference.abs().mean() + difference.square().mean() + args.kl * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_ema(ema, vae, min(0.998, (step + 1) / (step + 20)))
        if (step + 1) % 20 == 0:
            psnr = -10 * math.log10(float(difference.detach().square().mean()) / 4)
            line = {"step": step + 1, "psnr": round(psnr, 2), "kl": round(float(kl), 3),
                    "s_per_step": round((time.time() - started) / (step + 1 - first), 3)}  # fmt: skip
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
        if (step + 1) % 300 == 0 or step + 1 == args.steps:
            state.save(checkpoint, step + 1)
            live = {k: v.detach().clone() for k, v in vae.state_dict().items()}
            vae.load_state_dict(ema)
            psnr, picture = validate(vae, 12, args.frames)
            vae.load_state_dict(live)
            write_image(args.out / f"samples_{step + 1:05d}.png", picture)
            print({"step": step + 1, "validation_psnr": round(psnr, 2)}, flush=True)
            log.write(json.dumps({"step": step + 1, "validation_psnr": psnr}) + "\n")
            log.flush()
    vae.load_state_dict(ema)
    if not args.decoder_of:
        latents = torch.cat([encode(vae, sample_clip("train", 10**6 + k, 9)[None].to(device)) for k in range(200)])
        match_wan_statistics(vae.cpu(), latents.mean((0, 2, 3, 4)).cpu(), latents.std((0, 2, 3, 4)).cpu())
    save_vae(vae.cpu(), args.out / VAE_FILE.name)
    if args.export:
        save_vae(vae, VAE_FILE)


if __name__ == "__main__":
    main()
