"""Does the small backbone understand its text? On clips whose skeleton leaves open what the text says.

    python run.py bench text --seed 0 --json text.json

The set: humans and cartoons of the test split, which no training seed can reach, doing a named motion of the arms or of
the legs, driven by their own skeleton without those limbs (one of the augmentations that the pose LoRA is trained with).
The figure is the flow-matching error of the generated half against the truth, at fixed noise levels and with the same
noise, under the right text, under the text of another motion, and without text. The test is a one-sided sign test over
the clips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from scipy.stats import binomtest

from dreamactor_core.poses import from_body_joints
from dreamactor_core.skeleton import draw_skeleton
from dreamactor_core.words import encode_text
from headless.atomic import atomic
from training.lora_file import add_lora, load_lora
from training.marionette import cache
from training.marionette.attention import use_plain_attention
from training.marionette.backbone import LORA_FOLDER, load_model, load_vae, load_words
from training.marionette.train_base import VALIDATION_SIGMAS, Batch
from training.marionette.train_lora import LAYOUT, generated_loss
from training.marionette.world import HEIGHT, LEAD_IN, WIDTH, Scene, rng_for, sample_scene
from training.native import wan_transformer_key

LIMBS = {
    "waves": "arms", "raises both arms": "arms", "swings the arms": "arms", "claps": "arms", "squats": "legs", "kicks": "legs",
    "marches": "legs",
}  # fmt: skip
"""Named motions and the limbs that make them."""


def sample_clip(seed: int, index: int) -> tuple[Scene, str]:
    """A held-out scene of one of the motions, and the caption of another motion."""
    rng = rng_for("test", 0, 1, seed, index)
    while (scene := sample_scene(rng, str(rng.choice(["human", "cartoon"])))).motion.name not in LIMBS:
        pass
    others = [name for name in LIMBS if name != scene.motion.name]
    return scene, f"a {scene.character.plan} {rng.choice(others)}"


def load_pose_model() -> torch.nn.Module:
    """The shipped backbone with the shipped pose LoRA."""
    if not torch.cuda.is_available():
        use_plain_attention()
    path = LORA_FOLDER / "marionette_pose.safetensors"
    with safe_open(path, "pt") as file:
        rank = next(file.get_slice(key).get_shape()[0] for key in file.keys() if key.endswith("lora_A.weight"))  # noqa: SIM118
    model = load_model()
    add_lora(model, rank)
    load_lora(model, path, wan_transformer_key)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.no_grad()
def errors(model: torch.nn.Module, vae: torch.nn.Module, seed: int, count: int) -> np.ndarray:
    """Error under the right text, under another motion's and without text: (count, 3)."""
    words, rows = load_words(), []
    for index in range(count):
        scene, wrong = sample_clip(seed, index)
        joints = scene.keypoints()[LEAD_IN:]
        joints[:, cache.LIMBS[LIMBS[scene.motion.name]]] = 0
        skeleton = draw_skeleton(from_body_joints(joints, HEIGHT, WIDTH), HEIGHT, WIDTH)
        with torch.autocast("cpu", torch.bfloat16):  # as the cache that training reads is encoded; much faster
            one = cache.encode_composite(vae, cache.to_pixels(scene.draw()[0]), cache.to_pixels(skeleton))
        given, target = one["condition"], one["target"]
        t, h, w = target.shape[1:]
        copies, texts = len(VALIDATION_SIGMAS), (scene.describe(), wrong, "")

        def repeated(x: torch.Tensor, copies: int = copies) -> torch.Tensor:
            return x.expand(3 * copies, -1, -1, -1, -1)

        known = LAYOUT.known_mask(t, h, w)
        batch = Batch(
            repeated(LAYOUT.join(target[None], given[None, ..., w:])), repeated(given[None]), repeated(known),
            encode_text(words, [text for text in texts for _ in range(copies)]),
        ).to(model.device)  # fmt: skip
        noise = torch.randn(copies, *batch.clean.shape[1:], generator=torch.Generator().manual_seed(index)).to(batch.clean)
        sigma = torch.tensor(VALIDATION_SIGMAS).to(batch.clean)
        found = generated_loss(model, batch, sigma.repeat(3), noise.repeat(3, 1, 1, 1, 1))
        rows.append(found.view(3, copies).mean(1).cpu().numpy())
    return np.stack(rows)


def summary(values: np.ndarray) -> dict[str, float | int]:
    """Means, how many clips the right text wins, and the p values of the sign tests; `values` as `errors` gives them."""
    right, wrong, none = values.T
    found: dict[str, float | int] = {"n": len(values)}
    found |= {name: round(float(column.mean()), 5) for name, column in zip(("right", "wrong", "none"), values.T, strict=True)}
    for name, other in (("wrong", wrong), ("none", none)):
        wins, decided = int((right < other).sum()), int((right != other).sum())
        found[f"wins_over_{name}"] = wins
        found[f"p_{name}"] = float(binomtest(wins, decided, alternative="greater").pvalue) if decided else 1.0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="draws another held-out set")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--clips", type=int, default=96)
    args = parser.parse_args()
    if args.clips < 1 or args.seed < 0:
        parser.error(f"got --clips {args.clips} and --seed {args.seed}, expected at least 1 clip and a seed of 0 or more")
    found = summary(errors(load_pose_model(), load_vae(), args.seed, args.clips))
    print(json.dumps(found, indent=2))
    if args.json:
        with atomic(args.json) as partial:
            partial.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
