"""The weights in the repository belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from dreamactor_core.contract import Contract
from training.hashing import sha256
from training.marionette.backbone import LORA_FOLDER, MODEL_FILE

WEIGHTS = MODEL_FILE.parents[1]


@pytest.mark.parametrize(
    ("name", "variant", "context"),
    [("pose", "pose", "joint"), ("pose_cached", "pose", "cached"), ("pose_retarget", "pose", "cached"), ("rgb", "rgb", "cached")],
)
def test_the_loras_were_trained_on_the_backbone_beside_them(name: str, variant: str, context: str) -> None:
    with safe_open(LORA_FOLDER / f"marionette_{name}.safetensors", "pt") as file:
        contract = Contract.from_metadata(file.metadata())
        ups = [file.get_tensor(key) for key in file.keys() if key.endswith("lora_B.weight")]  # noqa: SIM118
    assert (contract.variant, contract.motion_context) == (variant, context)
    assert contract.backbone_sha256 == sha256(MODEL_FILE)
    # B starts at zero: a layer that still is has not been trained
    assert ups and all(up.abs().max() > 1e-4 for up in ups)


@pytest.mark.parametrize(
    ("name", "pairs", "parent"),
    [
        # of the run pose_retarget of training/recipes/marionette.yaml, which began with marionette_pose_cached
        ("pose_retarget", "self", "8f4ca1defe2ba739a1524ce4729635343415e399dfb3188ec1164dd3d2703d67"),
        ("rgb", "synthetic", None),
    ],
)
def test_a_lora_names_the_pose_lora_that_it_started_from(name: str, pairs: str, parent: str | None) -> None:
    with safe_open(LORA_FOLDER / f"marionette_{name}.safetensors", "pt") as file:
        contract = Contract.from_metadata(file.metadata())
    assert contract.parent_sha256 == (parent or sha256(LORA_FOLDER / "marionette_pose_cached.safetensors"))
    assert contract.pairs == pairs


def test_all_weights_together_are_small_enough_for_a_repository() -> None:
    assert sum(path.stat().st_size for path in Path(WEIGHTS).rglob("*.safetensors")) <= 48e6
