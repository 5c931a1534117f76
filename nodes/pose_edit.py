"""Nodes between a pose extractor and Pose Draw: they change poses and hand them on as POSE_KEYPOINT."""

from __future__ import annotations

from typing import Any

import numpy as np
from comfy_api.latest import io

from ..dreamactor_core import augment, smoothing
from ..dreamactor_core.poses import to_pose_keypoint
from ..dreamactor_core.retarget import retarget
from .loaders import CATEGORY
from .pose import PoseKeypoint, host_progress, read_clip


class PoseAugment(io.ComfyNode):
    """The paper's pose augmentation: other bone lengths, and the box normalisation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorPoseAugment",
            display_name="DreamActor Pose Augment",
            category=f"{CATEGORY}/pose",
            description="Takes body shape out of poses, as in training: gives bones random other lengths (joint angles stay, "
            "left and right go together, one factor for the whole clip) and zooms the clip onto the box around everybody.",
            search_aliases=["bone scaling", "pose augmentation", "randomize skeleton", "normalize pose", "body shape"],
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="Poses of a whole clip."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="The same seed draws the same bone lengths.",
                ),
                io.Float.Input(
                    "share", default=augment.SHARE, min=0.0, max=1.0, step=0.05,
                    tooltip="Chance that this clip's bones are changed at all. The paper changes 30% of its clips; 1 always does.",
                ),
                io.Float.Input("low", default=augment.LOW, min=0.1, max=5.0, step=0.05, tooltip="Smallest factor of a length."),
                io.Float.Input("high", default=augment.HIGH, min=0.1, max=5.0, step=0.05, tooltip="Largest factor of a length."),
                io.Boolean.Input(
                    "normalize", default=True,
                    tooltip="Zoom the clip so that the box around all joints of all frames fills the canvas, aspect ratio kept.",
                ),
                io.Float.Input(
                    "margin", default=augment.MARGIN, min=0.0, max=0.45, step=0.01,
                    tooltip="Share of the canvas left free on each side of the box. Only read when normalize is on.",
                ),
            ],
            outputs=[PoseKeypoint.Output(display_name="pose_keypoint", tooltip="On the same canvas.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, pose_keypoint: Any, seed: int, share: float, low: float, high: float, normalize: bool, margin: float
    ) -> io.NodeOutput:
        rng = np.random.default_rng(seed)
        poses = augment.scale_bones(read_clip(pose_keypoint), rng, low, high, share, host_progress(1))
        if normalize:
            poses = augment.normalise(poses, poses.height, poses.width, margin)
        return io.NodeOutput(to_pose_keypoint(poses))


class PoseRetarget(io.ComfyNode):
    """The driver's motion with the reference's proportions, in its place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorPoseRetarget",
            display_name="DreamActor Pose Retarget",
            category=f"{CATEGORY}/pose",
            description="Gives the driver's motion the bone lengths, the place and the floor of the reference, so that the "
            "skeleton is one that the reference could make. Feet that rest stay at rest; nothing is invented. Who comes nearer "
            "grows, from the reference's size at the first frame.",
            search_aliases=["retarget pose", "align pose", "proportions", "match skeleton", "pose transfer"],
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="The driver's poses: whose motion."),
                PoseKeypoint.Input(
                    "reference_pose",
                    tooltip="Poses of the reference image, from the same pose extractor: whose body. The first frame that shows "
                    "somebody counts.",
                ),
                io.Int.Input(
                    "travel_frames", default=0, min=0, max=240,
                    tooltip="Frames put in front in which the pose goes from the reference's own to the driver's first. "
                    "DreamActor LoRAs need none, their lead-in does that; sound starts later by as many frames.",
                ),
            ],
            outputs=[PoseKeypoint.Output(display_name="pose_keypoint", tooltip="On the reference's canvas.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, pose_keypoint: Any, reference_pose: Any, travel_frames: int) -> io.NodeOutput:
        driver, reference = read_clip(pose_keypoint, "pose_keypoint"), read_clip(reference_pose, "reference_pose")
        return io.NodeOutput(to_pose_keypoint(retarget(driver, reference, travel_frames, host_progress(1))))


class PoseSmooth(io.ComfyNode):
    """Poses without jitter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorPoseSmooth",
            display_name="DreamActor Pose Smooth",
            category=f"{CATEGORY}/pose",
            description="Takes the jitter of a pose extractor out of a clip without lag, and joints that are elsewhere for one "
            "frame. Joints that were lost stay lost.",
            search_aliases=["smooth pose", "denoise keypoints", "stabilize skeleton", "jitter", "savitzky golay"],
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="Poses of a whole clip."),
                io.Int.Input(
                    "reach", default=smoothing.REACH, min=0, max=30,
                    tooltip="Frames looked at on each side of a frame. More is smoother and rounds off fast motion; 0 is off.",
                ),
            ],
            outputs=[PoseKeypoint.Output(display_name="pose_keypoint", tooltip="As many frames, on the same canvas.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, pose_keypoint: Any, reach: int) -> io.NodeOutput:
        return io.NodeOutput(to_pose_keypoint(smoothing.smooth(read_clip(pose_keypoint), reach, host_progress(1))))
