"""The pose nodes as ComfyUI sees them: their inputs, what they hand on, what they refuse."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"
DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"
NODES = ("PoseAugment", "PoseRetarget", "PoseSmooth")


def frames_of(name: str) -> list[dict[str, Any]]:
    """The first frames of a drive."""
    return json.loads((DRIVES / f"{name}.json").read_text("utf-8"))["frames"][:12]


def node(pack: ModuleType, name: str) -> Any:
    return getattr(pack.nodes.pose if name == "PoseDraw" else pack.nodes.pose_edit, name)


def run(pack: ModuleType, name: str, **inputs: Any) -> Any:
    """The first output, with the defaults of the schema for what is not given."""
    made = node(pack, name)
    defaults = {i.id: i.default for i in made.define_schema().inputs if getattr(i, "default", None) is not None}
    return made.execute(**defaults, **inputs).result[0]


def joints(pack: ModuleType, frames: Any) -> np.ndarray:
    poses = pack.dreamactor_core.poses
    sequence = poses.from_pose_keypoint(frames)
    return np.array([(people[0] if people else poses.Person()).body for people in sequence.frames])


@pytest.mark.parametrize("name", [*NODES, "PoseDraw"])
def test_every_input_says_what_it_does(pack: ModuleType, name: str) -> None:
    schema = node(pack, name).define_schema()
    assert schema.node_id == f"DreamActor{name}"
    assert schema.display_name.startswith("DreamActor Pose ")
    assert schema.category == "DreamActor-M2/pose"
    assert len(schema.search_aliases) >= 3
    page = (DOCS / f"{schema.node_id}.md").read_text("utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    for one in schema.inputs:
        assert one.tooltip, one.id
        assert one.id in page
    assert all(out.tooltip for out in schema.outputs)


def test_saved_workflows_keep_their_values(pack: ModuleType) -> None:
    """Values of a saved graph are in the order of the inputs: what was there before style stays before it."""
    schema = node(pack, "PoseDraw").define_schema()
    before = ["pose_keypoint", "width", "height", "fit", "face", "hands", "threshold"]
    assert [one.id for one in schema.inputs] == [*before, "style"]
    skeleton = importlib.import_module(f"{pack.__name__}.dreamactor_core.skeleton")
    assert schema.inputs[3].options == ["canvas", "people", "crop"]
    assert schema.inputs[-1].options == list(skeleton.STYLES)
    assert schema.inputs[-1].default == "dwpose"


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (80, 80), (160, 320)])
def test_a_cropped_skeleton_lies_on_a_cropped_picture(pack: ModuleType, size: tuple[int, int]) -> None:
    """To a pixel: a joint is where the host's centre crop has the dot that marks it in the picture."""
    import comfy.utils

    height, width = size
    picture = torch.zeros(1, 3, 211, 150)
    spots = [(60, 90), (75, 105), (101, 130), (52, 128)]
    body = np.zeros((18, 3), np.float32)
    for k, (x, y) in enumerate(spots):
        picture[:, k % 3, y - 4 : y + 5, x - 4 : x + 5] = 1
        body[k] = x, y, 1
    sequence = pack.dreamactor_core.poses.from_body_joints(body[None], 211, 150)
    cropped = comfy.utils.common_upscale(picture, width, height, "bilinear", "center")[0].numpy()
    (person,) = sequence.cropped(height, width).frames[0]
    for k, (x, y, _) in enumerate(person.body[: len(spots)]):
        near = cropped[k % 3].copy()
        rows, columns = np.mgrid[:height, :width]
        near[(abs(rows - y) > 12 * height / 150) | (abs(columns - x) > 12 * width / 150)] = 0
        at = (near * columns).sum() / near.sum(), (near * rows).sum() / near.sum()
        assert np.hypot(at[0] - x, at[1] - y) < 1.5
    frames = pack.dreamactor_core.poses.to_pose_keypoint(sequence)
    drawn = node(pack, "PoseDraw").execute(frames, width, height, "crop", False, False, 0.3).result[0]
    red = (drawn[0] == torch.tensor([1.0, 0, 0])).all(-1).nonzero().float().mean(0)
    assert abs(red[1] - person.body[0, 0]) < 1.5 and abs(red[0] - person.body[0, 1]) < 1.5


def test_draw_gives_an_image_a_frame_in_each_style(pack: ModuleType) -> None:
    frames = frames_of("toon_dancer")
    pictures = {}
    for style in ("dwpose", "controlnet_aux", "sdpose"):
        given = {"width": 320, "height": 256, "fit": "people", "face": True, "hands": True, "threshold": 0.3}
        pictures[style] = node(pack, "PoseDraw").execute(frames, **given, style=style).result[0]
        assert pictures[style].shape == (len(frames), 256, 320, 3)
        assert pictures[style].dtype == torch.float32
        assert pictures[style].max() == 1
    assert not torch.equal(pictures["dwpose"], pictures["sdpose"])
    plain = node(pack, "PoseDraw").execute(frames, 320, 256, "people", True, True, 0.3).result[0]
    assert torch.equal(plain, pictures["dwpose"])


@pytest.mark.parametrize("name", ["dancer", "man_upper_body", "toon_dancer"])
def test_poses_go_through_unchanged_where_nothing_is_to_do(pack: ModuleType, name: str) -> None:
    frames = frames_of(name)
    for after in (
        node(pack, "PoseSmooth").execute(frames, 0).result[0],
        node(pack, "PoseRetarget").execute(frames, frames[:1], 0).result[0],
        node(pack, "PoseAugment").execute(frames, 0, 0.0, 0.8, 1.2, False, 0.07).result[0],
    ):
        np.testing.assert_allclose(joints(pack, after), joints(pack, frames), rtol=1e-6, atol=1e-4)
        json.dumps(after)


def test_the_chain_runs_with_the_defaults(pack: ModuleType) -> None:
    driver, reference = frames_of("dancer"), frames_of("toon_dancer")
    smooth = run(pack, "PoseSmooth", pose_keypoint=driver)
    placed = run(pack, "PoseRetarget", pose_keypoint=smooth, reference_pose=reference)
    assert (placed[0]["canvas_width"], placed[0]["canvas_height"]) == (reference[0]["canvas_width"], reference[0]["canvas_height"])
    augmented = run(pack, "PoseAugment", pose_keypoint=placed)
    assert len(run(pack, "PoseDraw", pose_keypoint=augmented)) == len(driver)
    longer = node(pack, "PoseRetarget").execute(driver, reference, 6).result[0]
    assert len(longer) == len(driver) + 6


def test_the_seed_decides(pack: ModuleType) -> None:
    frames = frames_of("dancer")
    one, again, other = (node(pack, "PoseAugment").execute(frames, s, 1.0, 0.8, 1.2, True, 0.07).result[0] for s in (3, 3, 4))
    assert one == again
    assert one != other


def test_a_name_that_comes_from_another_node_is_looked_at_when_it_is_there(pack: ModuleType) -> None:
    """The host asks with None before that node has run."""
    load = pack.nodes.pose.LoadPoses
    assert load.validate_inputs(poses=None) is True
    assert load.fingerprint_inputs(poses=None) != load.fingerprint_inputs(poses=None), "the file may be another one by then"
    assert "there is no pose file 'none.json'" in load.validate_inputs(poses="none.json")


def test_errors_name_the_input_and_what_to_do(pack: ModuleType) -> None:
    nobody = [{"people": [], "canvas_width": 64, "canvas_height": 64}]
    frames = frames_of("dancer")
    for name in ("PoseAugment", "PoseSmooth"):
        with pytest.raises(ValueError, match="nobody in any of the 1 frames, expected a person"):
            run(pack, name, pose_keypoint=nobody)
    with pytest.raises(ValueError, match="nobody in any of the 1 frames of reference_pose"):
        run(pack, "PoseRetarget", pose_keypoint=frames, reference_pose=nobody)
    with pytest.raises(ValueError, match=r"pose_keypoint: POSE_KEYPOINT: got int"):
        run(pack, "PoseRetarget", pose_keypoint=3, reference_pose=frames)
    with pytest.raises(ValueError, match="the smaller one first"):
        node(pack, "PoseAugment").execute(frames, 0, 1.0, 1.2, 0.8, True, 0.07)
