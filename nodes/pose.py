"""Poses: read them from a file, draw them as a skeleton video."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..dreamactor_core.augment import FITS, placed
from ..dreamactor_core.clips import check_size
from ..dreamactor_core.order import steady_people
from ..dreamactor_core.poses import PoseFormatError, PoseSequence, from_pose_keypoint, read_pose_file
from .loaders import CATEGORY

PoseKeypoint = io.Custom("POSE_KEYPOINT")


def host_progress(total: int) -> Callable[[int, int], None]:
    """A callback that moves the node's progress bar and stops when the user cancels."""
    bar = comfy.utils.ProgressBar(total)

    def report(done: int, of: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, of)

    return report


def read_people(pose_keypoint: Any, what: str = "") -> PoseSequence:
    """Poses in which somebody is seen. `what` names the input in errors. Raises PoseFormatError."""
    try:
        poses = from_pose_keypoint(pose_keypoint)
    except PoseFormatError as error:
        raise PoseFormatError(f"{what}: {error}" if what else str(error)) from error
    if not any(person.seen for people in poses.frames for person in people):
        where = f"in any of the {len(poses)} frames" + (f" of {what}" if what else "")
        raise PoseFormatError(f"there is nobody {where}, expected a person in some; check the pose extractor")
    return poses


def read_clip(pose_keypoint: Any, what: str = "") -> PoseSequence:
    """`read_people`, with each of them at one place in the list."""
    return steady_people(read_people(pose_keypoint, what))


def _pose_files() -> list[str]:
    folder = Path(folder_paths.get_input_directory())
    # not deeper: some users keep whole datasets in there, and this runs at every start
    found = [*folder.glob("*.json"), *folder.glob("*/*.json")]
    return sorted(path.relative_to(folder).as_posix() for path in found)


class LoadPoses(io.ComfyNode):
    """POSE_KEYPOINT from a JSON file in the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorLoadPoses",
            display_name="DreamActor Load Poses",
            category=f"{CATEGORY}/pose",
            description="Reads a pose file from the input folder: a list of POSE_KEYPOINT frames, or an object with `frames` and "
            "`frame_ms` (milliseconds a frame is shown).",
            search_aliases=["load pose keypoint", "openpose json", "keypoints"],
            inputs=[
                io.Combo.Input("poses", options=_pose_files(), tooltip="JSON file in ComfyUI's input folder."),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.01, optional=True,
                    tooltip="Frames per second of the poses. 0: as the file says; a plain list of more than one frame does not "
                    "say and needs a value.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(display_name="pose_keypoint"),
                io.Float.Output(display_name="fps", tooltip="Of the poses, for driving_fps. 0 if nobody knows."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, poses: str | None) -> bool | str:
        if poses is None:  # its name comes from another node
            return True
        if not folder_paths.exists_annotated_filepath(poses) or not Path(folder_paths.get_annotated_filepath(poses)).is_file():
            return f"there is no pose file {poses!r} in the input folder"
        return True

    @classmethod
    def fingerprint_inputs(cls, poses: str | None, fps: float = 0.0) -> str | float:
        if poses is None:
            return float("nan")  # which file it is nobody says here: it is read each time
        return hashlib.sha256(Path(folder_paths.get_annotated_filepath(poses)).read_bytes()).hexdigest()

    @classmethod
    def execute(cls, poses: str, fps: float = 0.0) -> io.NodeOutput:
        frames, stated = read_pose_file(Path(folder_paths.get_annotated_filepath(poses)))
        rate = fps or stated or 0.0
        if not rate and len(frames) > 1:
            raise PoseFormatError(f"{poses} does not say how fast its frames follow each other; set fps")
        return io.NodeOutput(frames, rate)


class PoseDraw(io.ComfyNode):
    """POSE_KEYPOINT to a skeleton video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorPoseDraw",
            display_name="DreamActor Pose Draw",
            category=f"{CATEGORY}/pose",
            description="Draws poses as an OpenPose-style skeleton video on black: 18 body joints, hands and face, any number of "
            "people. Takes the POSE_KEYPOINT of Pose Extract, DWPose, SDPose or Load Poses.",
            search_aliases=["draw pose", "openpose", "dwpose", "skeleton", "render pose keypoint"],
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="Poses of DWPose, SDPose, or the pose nodes of this pack."),
                io.Int.Input("width", default=832, min=16, max=8192, step=16, tooltip="Width of one half of the composite."),
                io.Int.Input("height", default=480, min=16, max=8192, step=16, tooltip="Height of one half of the composite."),
                io.Combo.Input(
                    "fit", options=list(FITS), default="canvas",
                    tooltip="canvas: the frame the poses were found in, letterboxed. people: zoomed onto the box that encloses "
                    "everyone over the whole clip, centred, standing on the lower margin, for drivers small in their frame. "
                    "crop: the frame the poses were found in, cropped as reference images are: for poses retargeted to one.",
                ),
                io.Boolean.Input("face", default=True, tooltip="Draw the 70 face points."),
                io.Boolean.Input("hands", default=True, tooltip="Draw the 21 points of each hand."),
                io.Float.Input("threshold", default=0.3, min=0.0, max=1.0, step=0.01, tooltip="Draw joints above this confidence."),
                # inputs are saved by their order: new ones come last
                io.Combo.Input(
                    "style", options=["dwpose", "controlnet_aux", "sdpose"], default="dwpose", optional=True,
                    tooltip="dwpose: widths grow with the picture; DreamActor LoRAs are trained with it. controlnet_aux, sdpose: "
                    "4 pixels wide at every size, as those nodes draw, for other models; sdpose has brighter limbs.",
                ),
            ],
            outputs=[io.Image.Output(display_name="skeleton", tooltip="One image a frame.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        pose_keypoint: Any,
        width: int,
        height: int,
        fit: str,
        face: bool,
        hands: bool,
        threshold: float,
        style: str = "dwpose",
    ) -> io.NodeOutput:
        from ..dreamactor_core.skeleton import draw_skeleton  # OpenCV, not at start-up

        check_size(height, width)
        poses = read_people(pose_keypoint)
        poses = poses.without(*([] if face else ["face"]), *([] if hands else ["left_hand", "right_hand"]))
        poses = placed(poses, height, width, fit, threshold)
        progress = host_progress(len(poses))
        frames = draw_skeleton(poses, height, width, threshold=threshold, style=style, progress=progress)
        if not frames.any():
            raise PoseFormatError(
                f"nothing can be seen in any of the {len(poses)} frames: every joint is outside the canvas, hidden, or of a "
                f"confidence not above the threshold of {threshold:g}; lower it, or check the pose extractor"
            )
        return io.NodeOutput(torch.from_numpy(frames).to(torch.float32).div_(255))  # in place: a batch can be gigabytes
