"""Poses out of pictures and videos."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..dreamactor_core.extract import session, weights
from ..dreamactor_core.extract.catalogue import MODELS, PoseModel, WeightFile
from ..dreamactor_core.poses import to_pose_keypoint
from .loaders import CATEGORY
from .pose import PoseKeypoint, host_progress
from .telling import show_on_node

if TYPE_CHECKING:
    from ..dreamactor_core.extract.extractor import Extracted

KIND = "detection"
"""The host's folder for networks that find things in pictures."""
_ELSEWHERE = ("dwpose", "DWPose", "checkpoints/DWPose", "onnx")  # among the models, where other packs look for these files
_AUX = Path("comfyui_controlnet_aux/ckpts")  # among the custom nodes; one folder for each publisher, one in it for each repository
_WORKING_MEMORY = 2 << 30  # bytes that both networks may take beside a backbone; they need about half of it


def weight_folders() -> list[Path]:
    """Where weights are looked for, the host's own folders first; a download goes into the first."""
    own = [Path(path) for path in folder_paths.get_folder_paths(KIND)]
    others = [Path(folder_paths.models_dir) / name for name in _ELSEWHERE]
    aux = [Path(path) / _AUX for path in folder_paths.get_folder_paths("custom_nodes")]
    return [*own, *others, *(publisher for folder in aux if folder.is_dir() for publisher in sorted(folder.iterdir()))]


def weights_of(model: PoseModel, download: bool = False) -> dict[WeightFile, Path]:
    """The files of detector and network; fetched where they are missing if the user asks for that. Raises ExtractError."""
    folders = weight_folders()
    found = {file: weights.find(file, folders) for file in (model.detector, model.network)}
    absent = [file for file, path in found.items() if path is None]
    if absent and not download:
        raise weights.missing(absent, folders[0], "turn on download in this node to have them fetched and checked")
    return {file: path or weights.fetch(file, folders[0], host_progress(file.size)) for file, path in found.items()}


def _on_cuda() -> bool:
    return comfy.model_management.is_nvidia()  # ROCm's devices are named cuda as well


@functools.lru_cache(maxsize=2)  # a detector and a pose network
def _on_cpu(path: Path, changed: int) -> session.Network:
    return session.load(path, "cpu", 0)


def _loaded(path: Path, device: session.Device, index: int) -> session.Network:
    """Networks on the CPU stay for the next run. On a GPU they would hold memory that the host cannot free for sampling."""
    return _on_cpu(path, path.stat().st_mtime_ns) if device == "cpu" else session.load(path, device, index)


def _identity(file: WeightFile, path: Path) -> str:
    if weights.sha256_of(path) == file.sha256:
        return f"{path.name} (sha256 as published)"
    told = f"{path.name} (NOT the published file: another sha256)"
    logging.warning("DreamActor Pose Extract: %s, expected %s of %s", told, file.sha256, file.sources[0].url)
    return told


def _people(result: Extracted) -> str:
    told = [f"people: {len(result.seen)}, seen in {', '.join(map(str, result.seen))} frames"]
    if result.left_out:
        told.append(f"{result.left_out} shorter appearances left out")
    if result.joined:
        told.append(f"{result.joined} appearance(s) after a cut or a long absence taken for people seen before")
    if len(result.seen) > result.at_once:
        told.append(
            f"never more than {result.at_once} at a time: somebody may have come back as a new one, with the rest of the motion; "
            f"cut the video there"
        )
    return "; ".join(told)


class PoseExtract(io.ComfyNode):
    """IMAGE or VIDEO to POSE_KEYPOINT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorPoseExtract",
            display_name="DreamActor Pose Extract",
            category=f"{CATEGORY}/pose",
            description="Finds people (body, face, hands) or animals in images or a video and follows them, so that each has the "
            "same place in the list in every frame.",
            search_aliases=["dwpose", "rtmw", "rtmpose", "pose estimator", "openpose", "keypoints", "animal pose", "ap10k"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.MultiType.Input(
                    "images", types=[io.Image, io.Video],
                    tooltip="The driving video, or the reference image. IMAGE batch or VIDEO.",
                ),
                io.Combo.Input(
                    "model", options=list(MODELS), default="dwpose",
                    tooltip="dwpose: photographed people. rtmw: people, drawn ones too. animal: four-legged ones, as a skeleton "
                    "whose arms are the forelegs. The help page names the files.",
                ),
                io.Combo.Input(
                    "device", options=["auto", "cuda", "cpu"], default="auto",
                    tooltip="auto: CUDA where ComfyUI itself runs on an NVIDIA GPU, else the CPU. What cannot be had is an error.",
                ),
                io.Boolean.Input(
                    "download", default=False,
                    tooltip="Fetch weight files that are missing into models/detection, and check their sha256.",
                ),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.01,
                    tooltip="Frames per second to take from a VIDEO, 0 for its own rate; of an IMAGE batch, what it has.",
                ),
                io.Int.Input(
                    "max_people", default=4, min=1, max=32,
                    tooltip="Those who are seen large and long stay; in each frame the largest are looked at.",
                ),
                io.Float.Input(
                    "min_confidence", default=0.3, min=0.0, max=1.0, step=0.01,
                    tooltip="Joints less sure than this are not seen.",
                ),
                io.Float.Input(
                    "detection_threshold", default=0.5, min=0.05, max=1.0, step=0.01,
                    tooltip="How sure the detector must be that there is somebody. Lower it for drawn or unusual characters.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose_keypoint", tooltip="Person k is the same in all frames; where unseen, all zeros."
                ),
                io.Float.Output(display_name="fps", tooltip="Of the poses, for driving_fps. 0 if nobody knows."),
                io.Image.Output(display_name="preview", tooltip="Up to 16 small frames with skeletons. Pose Draw draws all."),
                io.String.Output(display_name="report", tooltip="Device, provider, frames/s, people, weights."),
                io.Audio.Output(
                    display_name="audio", tooltip="The VIDEO's sound, from its first frame on; nothing for images or without sound."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        images: Any,
        model: str,
        device: str,
        download: bool,
        fps: float,
        max_people: int,
        min_confidence: float,
        detection_threshold: float,
    ) -> io.NodeOutput:
        # OpenCV, not at start-up
        from ..dreamactor_core.extract.extractor import Extractor
        from .frames import open_frames
        from .video import sound_of

        chosen = MODELS[model]
        stream = open_frames(images, fps)
        used = session.choose_device(device, _on_cuda())
        files = weights_of(chosen, download)
        index = 0
        if used == "cuda" and _on_cuda():
            host_device = comfy.model_management.get_torch_device()
            index = host_device.index or 0
            comfy.model_management.free_memory(_WORKING_MEMORY, host_device)
        detector, network = (_loaded(path, used, index) for path in files.values())
        extractor = Extractor(chosen, detector, network, detection_threshold, min_confidence, max_people)
        result = extractor(stream.frames, stream.count, stream.rate, host_progress(stream.count))

        poses, rate = result.poses, stream.rate
        lines = [
            f"model: {chosen.title}",
            f"device: {used}, {network.provider} of onnxruntime {session.runtime().__version__}",
            f"frames: {len(poses)} of {poses.width}x{poses.height}" + (f" at {rate:g} fps" if rate else ""),
            f"speed: {result.frames_per_second:.3g} frames/s",
            _people(result),
            f"weights: {', '.join(_identity(*pair) for pair in files.items())}",
        ]
        if not rate and len(poses) > 1:  # a reference image has none, and needs none
            lines.insert(3, "fps unknown: set fps here, or driving_fps at In-Context Conditioning")
        preview, report = torch.from_numpy(result.preview).to(torch.float32).div_(255), "\n".join(lines)
        show_on_node(report, None if cls.hidden is None else cls.hidden.unique_id)
        audio = None
        if not isinstance(images, torch.Tensor) and rate:
            audio = sound_of(images, stream.start, len(poses) / rate, "the video")
        return io.NodeOutput(to_pose_keypoint(poses), rate or 0.0, preview, report, audio, ui={"text": [report]})
