"""The ComfyUI teacher without a server: how inputs are named, what is refused, how a result is brought to its target."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from synthesis import ROOT, config, draw, sample

from dreamactor_core.clips import ClipSpec
from headless.client import PromptFailed
from training.errors import UserError
from training.synthesize import comfyui
from training.synthesize.comfyui import Place, aligned, places, read_workflow
from training.synthesize.plan import Package, Unit, manifests, plan_units
from training.synthesize.worker import Lost

WORKFLOW = ROOT / "workflows" / "api" / "marionette_pose_retarget.json"
INPUTS = {
    "reference": "Reference.image", "driving_poses": "Driving poses.poses", "reference_poses": "Reference poses.poses",
    "prompt": "Prompt.text", "seed": "Sampler.seed", "output": "Result",
}  # fmt: skip


def test_inputs_are_found_by_title_or_id() -> None:
    found = places(read_workflow(WORKFLOW), INPUTS | {"seed": "13.seed"})
    assert found["seed"] == (Place("13", "seed"),) and found["output"] == (Place("15"),)
    several = places(read_workflow(WORKFLOW), INPUTS | {"width": ("Skeleton.width", "In-context conditioning.width")})
    assert several["width"] == (Place("7", "width"), Place("8", "width"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "Promt.text"}, r"0 nodes are titled 'Promt', expected one; there are: .*Prompt, .*Sampler"),
        ({"seed": "Sampler.noise_seed"}, r"'Sampler' has no input 'noise_seed'; it has .*seed"),
        ({"seed": "Sampler"}, "a node's title or id, a dot"),
        ({"sede": "Sampler.seed"}, "has 'sede', expected names out of"),
        ({"driving_video": "Driving poses.poses"}, "driving_poses and driving_video, expected one of"),
        ({"driving_poses": None}, "no driver"),
        ({"reference": None}, "has no `reference`"),
        ({"output": None}, "has no `output`"),
        ({"output": "Reslt"}, "0 nodes are titled 'Reslt'"),
        ({"output": ("Result", "Decode")}, "output names 2 nodes, expected the one"),
        ({"width": ("Skeleton.width", "Decode.width")}, "'Decode' has no input 'width'"),
    ],
)
def test_inputs_that_the_workflow_does_not_have(tmp_path: Path, changes: dict, message: str) -> None:
    inputs = {key: text for key, text in (INPUTS | changes).items() if text is not None}
    with pytest.raises(UserError, match=message):
        comfyui.check(config(tmp_path, teacher="comfyui", workflow=str(WORKFLOW), inputs=inputs))


def test_only_what_the_result_needs_is_run() -> None:
    workflow = read_workflow(ROOT / "workflows" / "api" / "wan2.1_vace_14b_pose.json")
    where = places(workflow, {
        "reference": "Reference.image", "driving_video": "Driving video.file", "prompt": "Prompt.text", "output": "Result",
    })  # fmt: skip
    kinds = [node["class_type"] for node in comfyui.leading_to(workflow, where["output"][0].node).values()]
    assert "DreamActorTextFusion" in kinds and "PreviewAny" not in kinds and "LoadVideo" in kinds
    workflow[where["prompt"][0].node]["inputs"]["text"] = "a bird flies"
    told = [node["class_type"] for node in comfyui.leading_to(workflow, where["output"][0].node).values()]
    assert sorted(kinds) == sorted([*told, "DreamActorTextFusion"])


def test_workflows_that_are_none(tmp_path: Path) -> None:
    def refused(path: Path | None, message: str) -> None:
        with pytest.raises(UserError, match=message):
            comfyui.check(config(tmp_path, teacher="comfyui", workflow=path and str(path), inputs=INPUTS))

    refused(None, "workflow is not given")
    refused(tmp_path / "none.json", "can't be read as JSON")
    refused(ROOT / "workflows" / "marionette_pose_retarget.json", "as the editor saves it, expected API format")
    (tmp_path / "list.json").write_text("[1]")
    refused(tmp_path / "list.json", "no workflow in API format")


def test_what_the_plan_must_know(tmp_path: Path) -> None:
    def check(**settings: object) -> comfyui.Teaching:
        return comfyui.check(config(tmp_path, teacher="comfyui", workflow=str(WORKFLOW), **settings))

    bare = {key: text for key, text in INPUTS.items() if key != "reference_poses"}
    video = {key: text for key, text in bare.items() if key != "driving_poses"} | {"driving_video": "Driving poses.poses"}
    assert check(inputs=INPUTS).needs == comfyui.Needs(poses=True, video=False, reference_poses=True)
    assert check(inputs=bare, retarget=False).needs == comfyui.Needs(poses=True, video=False, reference_poses=False)
    assert check(inputs=bare).needs.reference_poses, "we retarget where the workflow does not"
    assert check(inputs=video).needs == comfyui.Needs(poses=False, video=True, reference_poses=False)
    assert check(inputs=INPUTS).digest == check(inputs=INPUTS, retarget=False).digest, "the workflow retargets either way"
    digests = {check(inputs=inputs).digest for inputs in (INPUTS, bare, video)}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(WORKFLOW.read_text("utf-8")), indent=None))
    digests.add(comfyui.check(config(tmp_path, teacher="comfyui", workflow=str(other), inputs=INPUTS)).digest)
    assert len(digests) == 4
    longer = config(tmp_path, {"clip": {"lead_in": 0.3333}}, teacher="comfyui", workflow=str(WORKFLOW), inputs=INPUTS)
    assert comfyui.check(longer).digest not in digests, "the first driven frame is another"


def unit(**values: object) -> Unit:
    one = sample(Path("x"), "a", **values)
    return Unit("0" * 24, one, one, "", 0)


def test_a_result_comes_to_the_targets_rate_and_size_by_its_timestamps() -> None:
    spec = ClipSpec(13, 8, 12)  # five driven frames
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 48, 32, 3), np.uint8)
    same = aligned(frames[:5], [k / 12 for k in range(5)], 5 / 12, unit(), spec)
    assert np.array_equal(same, frames[:5])
    doubled = aligned(frames, [k / 24 for k in range(12)], 12 / 24, unit(), spec)
    assert doubled[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]
    late = aligned(frames[:6], [2 + k / 12 for k in range(6)], 2.5, unit(), spec)
    assert np.array_equal(late, frames[:5]), "the first frame is the first, whatever its time"
    large = aligned(np.repeat(np.repeat(frames, 2, 1), 2, 2), [k / 24 for k in range(12)], 0.5, unit(), spec)
    assert large.shape == (5, 48, 32, 3) and np.array_equal(large, doubled)


def test_a_result_that_does_not_fit_its_target() -> None:
    spec, frames = ClipSpec(13, 8, 12), np.zeros((5, 48, 32, 3), np.uint8)
    with pytest.raises(UserError, match=r"is 48x48, expected the aspect ratio of 32x48: map width"):
        aligned(np.zeros((5, 48, 48, 3), np.uint8), [k / 12 for k in range(5)], 5 / 12, unit(), spec)
    with pytest.raises(UserError, match=r"has 5 frames in 0\.21 s, that is 3 at 12 fps, expected the 5 driven ones"):
        aligned(frames, [k / 24 for k in range(5)], 5 / 24, unit(), spec)


@pytest.mark.parametrize(("said", "lost"), [
    ("CUDA error: an illegal memory access was encountered", True), ("CUDA error: device-side assert triggered", True),
    ("CUDA out of memory. Tried to allocate 2 GiB", False), ("CUDA error: out of memory", False),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False), ("an illegal memory access", False),
])  # fmt: skip
def test_a_server_whose_gpu_failed_is_lost_and_not_the_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, lost: bool
) -> None:
    """Every prompt fails on it from then on, as quickly as it is asked."""

    def fails(*_: object) -> None:
        raise PromptFailed(
            {}, {"node_type": "KSampler", "node_id": "3", "exception_type": "RuntimeError", "exception_message": said}
        )

    monkeypatch.setattr(comfyui.ComfyTeacher, "_one", fails)
    teacher = comfyui.ComfyTeacher(config(tmp_path, teacher="comfyui", workflow=str(WORKFLOW), inputs=INPUTS), "127.0.0.1:1", None)
    one = sample(tmp_path, "a")
    made = teacher.make(Package((Unit("a", one, one, "", 0),), frozenset("a")))
    if lost:
        with pytest.raises(Lost, match=r"can't go on .*CUDA error"):
            list(made)
    else:
        assert said in next(made)[1]


def test_servers_that_are_started_here_are_not_for_a_cluster(tmp_path: Path) -> None:
    given = {"teacher": "comfyui", "workflow": str(WORKFLOW), "inputs": INPUTS, "address": "ray://elsewhere:10001"}
    with pytest.raises(UserError, match=r"servers is empty and .*elsewhere:10001, expected servers that the cluster's machines"):
        comfyui.check(config(tmp_path, **given))
    comfyui.check(config(tmp_path, servers=["10.0.0.2:8188"], **given))
    for here in ("auto", "127.0.0.1:6379", "ray://localhost:10001"):
        comfyui.check(config(tmp_path, **(given | {"address": here})))


def test_a_server_that_does_not_answer_is_lost(tmp_path: Path) -> None:
    draw(tmp_path / "clips")
    settings = config(tmp_path, teacher="comfyui", workflow=str(WORKFLOW), inputs=INPUTS, same_kind=False)
    units = plan_units(settings, *manifests(settings), comfyui.check(settings))
    with socket.socket() as taken:  # and not listened to: nobody answers there, and nobody else can take it meanwhile
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        teacher = comfyui.ComfyTeacher(settings, address, None)
        with pytest.raises(Lost, match=f"{re.escape(address)} is gone"):
            list(teacher.make(Package((units[0],), frozenset([units[0].id]))))
