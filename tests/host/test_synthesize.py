"""The ComfyUI teacher against a real server: files in, a workflow of the small backbone, the result beside its target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from toys import ROOT

from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from headless.server import HostServer
from training.__main__ import main
from training.config import load
from training.manifest import Sample, read, write
from training.marionette.world import FPS, FRAMES, HEIGHT, LEAD_IN, WIDTH, rng_for, sample_scene
from training.synthesize import comfyui
from training.synthesize.comfyui import ComfyTeacher
from training.synthesize.direct import DirectTeacher
from training.synthesize.plan import Package, Unit, manifests, plan_units
from training.synthesize.servers import started
from training.synthesize.worker import Lost
from training.video import read_clip, write_clip

WORKFLOWS = ROOT / "workflows" / "api"
INPUTS = {
    "reference": "Reference.image", "driving_poses": "Driving poses.poses", "reference_poses": "Reference poses.poses",
    "prompt": "Prompt.text", "seed": "Sampler.seed", "output": "Result",
}  # fmt: skip
STEPS = 2


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people of the drawn world, and their poses."""
    folder, samples = tmp_path_factory.mktemp("pairs") / "clips", []
    for index in range(2):
        scene = sample_scene(rng_for("train", 78, index), "human")
        video, poses = folder / f"clip{index}.mkv", folder / f"clip{index}.json"
        write_clip(video, scene.draw()[0], FPS, lossless=True)
        keypoints = to_pose_keypoint(from_body_joints(scene.keypoints(), HEIGHT, WIDTH))
        poses.write_text(json.dumps({"frames": keypoints, "frame_ms": 1000 / FPS}), "utf-8")
        samples.append(
            Sample(
                id=f"clip{index}", kind="pose", target_video=video, poses=poses, caption=scene.describe(),
                motion=scene.motion.name, appearance="a human", fps=FPS, frames=FRAMES, width=WIDTH, height=HEIGHT,
            )
        )  # fmt: skip
    write(folder / "manifest.jsonl", samples)
    return folder


def run_file(folder: Path, clips: Path, **synthesize: object) -> Path:
    """A run's YAML; the workflow of `workflow` gets few steps."""
    name = synthesize.pop("workflow", "marionette_pose_retarget.json")
    prompt = json.loads((WORKFLOWS / str(name)).read_text("utf-8"))
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"].update(steps=STEPS)
    (folder / "workflow.json").write_text(json.dumps(prompt), "utf-8")
    given = {
        "teacher": "comfyui", "workflow": str(folder / "workflow.json"), "inputs": INPUTS, "sources": str(clips / "manifest.jsonl"),
        "lora": str(ROOT / "models" / "loras" / "marionette_pose_retarget.safetensors"), "steps": STEPS,
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"preset": "marionette", "out": str(folder), "synthesize": given | synthesize}), "utf-8")
    return path


def planned(path: Path) -> tuple[ComfyTeacher, list[Unit]]:
    config = load(path)
    return config, plan_units(config, *manifests(config), comfyui.check(config))


def one(teacher: ComfyTeacher | DirectTeacher, unit: Unit) -> np.ndarray | str:
    """What a teacher makes of one unit."""
    ((_, made),) = teacher.make(Package((unit,), frozenset([unit.id])))
    return made


def test_the_verb_with_a_pool_of_servers(server: HostServer, clips: Path, tmp_path: Path) -> None:
    path = run_file(tmp_path, clips, servers=[server.url, server.url.removeprefix("http://")])
    assert main(["synthesize", str(path)]) == 0
    samples = read(tmp_path / "synthetic" / "manifest.jsonl")
    assert {s.note for s in samples} == {"the motion of clip0 on clip1", "the motion of clip1 on clip0"}
    for sample in samples:
        frames = read_clip(sample.driving_video)
        assert frames.shape == (FRAMES - LEAD_IN, HEIGHT, WIDTH, 3) and sample.driving_start == LEAD_IN
        assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 0.1


def test_the_workflow_and_the_direct_teacher_make_the_same(server: HostServer, clips: Path, tmp_path: Path) -> None:
    import torch

    config, units = planned(run_file(tmp_path, clips))
    by_server = one(ComfyTeacher(config, server.url, None), units[0])
    direct = DirectTeacher(config, torch.device("cpu"))
    assert isinstance(by_server, np.ndarray)
    difference = {unit.id: np.abs(by_server.astype(int) - one(direct, unit)).mean() for unit in units}
    # the server's result went through a lossy video; the other pair shows how far apart two results are
    assert difference[units[0].id] < 6 and difference[units[0].id] < 0.3 * difference[units[1].id]


@pytest.mark.parametrize("driver", ["driving_poses", "driving_video", "driving_skeleton"])
def test_each_kind_of_driver_reaches_the_workflow(server: HostServer, clips: Path, tmp_path: Path, driver: str) -> None:
    inputs = {key: text for key, text in INPUTS.items() if key not in ("reference_poses", "driving_poses")}
    if driver == "driving_poses":  # retargeted before it is sent
        path = run_file(tmp_path, clips, workflow="marionette_pose.json", inputs=inputs | {driver: "Driving poses.poses"})
    else:
        path = run_file(tmp_path, clips, workflow="marionette_rgb.json", inputs=inputs | {driver: "Driving video.file"})
    config, units = planned(path)
    made = [one(ComfyTeacher(config, server.url, None), unit) for unit in units]
    assert all(isinstance(frames, np.ndarray) for frames in made), made
    assert np.abs(made[0].astype(int) - made[1]).mean() > 3


def test_what_a_workflow_refuses_is_that_units_reason(server: HostServer, clips: Path, tmp_path: Path) -> None:
    config, units = planned(run_file(tmp_path, clips, inputs=INPUTS | {"prompt": "Sampler.steps"}))
    assert "Sampler" in str(one(ComfyTeacher(config, server.url, None), units[0]))
    config, units = planned(run_file(tmp_path, clips, inputs=INPUTS | {"output": "Composite preview"}))
    assert "made 0 videos, expected one" in str(one(ComfyTeacher(config, server.url, None), units[0]))


@pytest.fixture(scope="module")
def own(clips: Path) -> Iterator[tuple[str, str]]:
    """A server of the run's own."""
    with started(1, 0, ["--cpu"]) as servers:
        yield servers[0]


def test_a_server_of_the_runs_own_keeps_no_results_and_is_lost_when_it_ends(
    own: tuple[str, str], clips: Path, tmp_path: Path
) -> None:
    config, units = planned(run_file(tmp_path, clips))
    address, results = own
    teacher = ComfyTeacher(config, address, Path(results))
    assert isinstance(one(teacher, units[0]), np.ndarray)
    assert not [path for path in Path(results).rglob("*") if path.is_file() and path.suffix == ".mp4"]


def test_servers_end_with_the_block_that_started_them(clips: Path, tmp_path: Path) -> None:
    config, units = planned(run_file(tmp_path, clips))
    with started(1, 0, ["--cpu"]) as servers:
        teacher = ComfyTeacher(config, servers[0][0], Path(servers[0][1]))
    assert not Path(servers[0][1]).exists()
    with pytest.raises(Lost, match="is gone"):
        one(teacher, units[0])
