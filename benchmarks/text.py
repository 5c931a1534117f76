"""Does the small backbone understand its text? On clips whose skeleton leaves open what the text says.

    python run.py bench text --seed 0 --json text.json

The set: humans and cartoons of the test split, which no training seed can reach, doing a named motion of the arms or of
the legs, driven by their own skeleton without those limbs (one of the augmentations that the pose LoRA is trained with).
The figure is the flow-matching error of the generated half against the truth, at fixed noise levels and with the same
noise, under the right text, under the text of another motion of the same limbs, and without text. The test is a
one-sided sign test over the clips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from scipy.stats import binomtest

from dreamactor_core.clips import ClipSpec
from dreamactor_core.contract import Contract
from dreamactor_core.layout import Layout, get_layout
from dreamactor_core.motion_context import get_context
from dreamactor_core.poses import from_body_joints
from headless.atomic import atomic
from training import backbones
from training.backbones.base import Encoders, VideoBackbone
from training.config import Backbone
from training.hashing import sha256
from training.latents import skeletons
from training.latents.encode import conditions_of, targets_of
from training.lora_file import add_lora, load_lora, rank_of
from training.marionette.backbone import LORA_FOLDER
from training.marionette.train_base import VALIDATION_SIGMAS
from training.marionette.world import FPS, FRAMES, HEIGHT, LEAD_IN, WIDTH, Scene, rng_for, sample_scene
from training.train.objective import Batch, losses

SPEC = ClipSpec(FRAMES, LEAD_IN, FPS)
LORA = LORA_FOLDER / "marionette_pose_cached.safetensors"
"""Of the shipped pose workflows."""

LIMBS = {
    "waves": "arms", "raises both arms": "arms", "swings the arms": "arms", "claps": "arms", "squats": "legs", "kicks": "legs",
    "marches": "legs",
}  # fmt: skip
"""Named motions and the limbs that make them."""


def sample_clip(seed: int, index: int) -> tuple[Scene, str]:
    """A held-out scene of one of the motions, and the caption of another motion of the hidden limbs, which no skeleton refutes."""
    rng = rng_for("test", 0, 1, seed, index)
    while (scene := sample_scene(rng, str(rng.choice(["human", "cartoon"])))).motion.name not in LIMBS:
        pass
    others = [name for name, limbs in LIMBS.items() if name != scene.motion.name and limbs == LIMBS[scene.motion.name]]
    return scene, f"a {scene.character.plan} {rng.choice(others)}"


def load_pose_model() -> tuple[VideoBackbone, torch.nn.Module, Encoders, Layout]:
    """The shipped backbone with the pose LoRA of the shipped workflows without Retarget, its encoders, and the LoRA's layout."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.get(Backbone(name="marionette", dtype="auto"))
    with safe_open(LORA, "pt") as file:
        contract = Contract.from_metadata(file.metadata(), LORA.name)
    model = backbone.load_transformer()
    backbone.use_context(model, get_context(contract.motion_context))
    add_lora(model, rank_of(LORA), backbone.family)
    load_lora(model, LORA, backbone.rename)
    layout = get_layout(contract.layout, contract.motion_context)
    return backbone, model.to(device).eval(), backbone.load_encoders(device), layout


@torch.no_grad()
def errors(
    backbone: VideoBackbone, model: torch.nn.Module, encoders: Encoders, layout: Layout, seed: int, count: int
) -> np.ndarray:
    """Error under the right text, under another motion's and without text: (count, 3)."""
    rows = []
    for index in range(count):
        scene, wrong = sample_clip(seed, index)
        poses = from_body_joints(scene.keypoints()[LEAD_IN:], HEIGHT, WIDTH)
        skeleton, clip = skeletons.drawn(skeletons.without(poses, LIMBS[scene.motion.name])), scene.draw()[0]
        (made,) = conditions_of(encoders, layout, [clip[0]], [skeleton], SPEC)
        given, target = made.pop("condition")[None], targets_of(encoders, layout, [clip], [skeleton], SPEC)
        size, copies, texts = target.shape[2:], len(VALIDATION_SIGMAS), (scene.describe(), wrong, "")
        batch = Batch(
            layout.join(target, given[..., size[2] :]).expand(3 * copies, -1, -1, -1, -1),
            given.expand(3 * copies, -1, -1, -1, -1), layout.known_mask(*size), layout.generated_mask(*size),
            backbone.collate([text | made for text in encoders.text([text for text in texts for _ in range(copies)])]),
        ).to(model.device)  # fmt: skip
        noise = torch.randn(copies, *batch.clean.shape[1:], generator=torch.Generator().manual_seed(index)).to(batch.clean)
        sigma = torch.tensor(VALIDATION_SIGMAS).to(batch.clean)
        found = losses(backbone, model, layout, batch, sigma.repeat(3), noise.repeat(3, 1, 1, 1, 1))
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
    found = {"lora": LORA.name, "sha256": sha256(LORA), "seed": args.seed}
    found |= summary(errors(*load_pose_model(), args.seed, args.clips))
    print(json.dumps(found, indent=2))
    if args.json:
        with atomic(args.json) as partial:
            partial.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
