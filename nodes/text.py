"""Text: the fused prompt by a service or by keypoints, and the prompts for the host's own text generation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..dreamactor_core.clips import resample_rate
from ..dreamactor_core.text.budget import SECONDS, Budget, encode, shrink
from ..dreamactor_core.text.checks import tidy
from ..dreamactor_core.text.errors import TextError
from ..dreamactor_core.text.fusion import MODES, ON_BAD_ANSWER, Texts, Writer, check_connected, check_given, make_texts
from ..dreamactor_core.text.prompts import LANGUAGES, SHIPPED, TASKS, Prompts, frames_in_words, load_prompts, version_of
from ..dreamactor_core.text.transport import DEFAULT_LIMITS, Limits, patience
from .frames import open_frames
from .loaders import CATEGORY
from .pose import PoseKeypoint
from .telling import show_on_node

KEYPOINTS = "keypoints"
"""The describer, in the list of services."""


def _folder() -> Path:
    """What is the user's: keys, edited prompts, kept answers. The host does not serve this folder."""
    return Path(folder_paths.get_system_user_directory("dreamactor"))


def _prompt_folders() -> tuple[Path, Path]:
    return _folder() / "prompts", SHIPPED


def _prompts(language: str) -> Prompts:
    return load_prompts(language, _prompt_folders())


def _version(language: str | None) -> str:
    """For the host's fingerprint, which is asked for before a linked language is known: None then."""
    return version_of(language, _prompt_folders())


def _one_picture(reference: torch.Tensor | None, budget: Budget) -> np.ndarray:
    """The reference as a model is shown it: RGB uint8 (H, W, 3)."""
    if reference is None:
        raise TextError("there is no reference, expected one image of the character; connect it, or give appearance_text")
    if not isinstance(reference, torch.Tensor):
        raise TextError(
            "got a VIDEO as the reference, expected one image of the character; take one out with 'Get Video Components' and 'Get "
            "Image from Batch'"
        )
    if reference.ndim == 4 and reference.shape[0] > 1:
        raise TextError(f"got {reference.shape[0]} reference images, expected one; pick one with 'Get Image from Batch'")
    return shrink(next(open_frames(reference, 0, "the reference").frames), budget)


def _sampled(driving: Any, driving_fps: float, budget: Budget) -> Iterator[np.ndarray]:
    """The frames of a driver, IMAGE or VIDEO, as a model is shown them: RGB uint8 (H, W, 3). One is large at a time."""
    if driving is None:
        raise TextError("there is no driving video, expected IMAGE or VIDEO; connect it, or give motion_text")
    if isinstance(driving, torch.Tensor) and driving.ndim == 4 and driving.shape[0] > 1:
        _need_rate(driving_fps, "a driving IMAGE batch")
        driving = driving[resample_rate(driving.shape[0], driving_fps, budget.fps)[: budget.frames]]
    frames = open_frames(driving, budget.fps, "the driver").frames
    return (shrink(frame, budget) for frame in islice(frames, budget.frames))


def _need_rate(driving_fps: float, what: str) -> None:
    if not driving_fps:
        raise TextError(f"{what} does not say how fast its frames follow each other; set driving_fps")


def _budget_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "driving_fps", default=0.0, min=0.0, max=240.0, step=0.01, optional=True,
            tooltip="Frames per second of a driving IMAGE batch or of POSE_KEYPOINT. A VIDEO brings its own.",
        ),
        io.Float.Input(
            "sample_fps", default=4.0, min=0.2, max=30.0, step=0.1, optional=True, advanced=True,
            tooltip=f"How many frames of each second the model is shown, of the first {SECONDS:g} seconds. 4: 20 pictures.",
        ),
        io.Int.Input(
            "longest_side", default=512, min=64, max=4096, step=8, optional=True, advanced=True,
            tooltip="Larger pictures are made smaller to this before they are shown to the model.",
        ),
    ]  # fmt: skip


def _text_input(name: str, tooltip: str) -> io.Input:
    return io.String.Input(name, multiline=True, force_input=True, optional=True, tooltip=tooltip)


def _tidied(text: str | None) -> str | None:
    """A text that may come from a model that thinks aloud; None: not connected."""
    return None if text is None else tidy(text)


class TextFusion(io.ComfyNode):
    """Motion text, appearance text, and the prompt that is fused of both."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorTextFusion",
            display_name="DreamActor Text Fusion",
            category=f"{CATEGORY}/text",
            description="Says the driver's motion and the reference's appearance in words and fuses both into one prompt, by "
            "Gemini, by any OpenAI-compatible service or local server, or (motion only) by the keypoints alone. Keys come from the "
            "environment or a key file, never from a widget.",
            search_aliases=[
                "prompt", "caption", "describe video", "describe motion", "motion to text", "mllm", "vlm", "llm", "gemini",
                "openai", "ollama",
            ],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input(
                    "service", options=["gemini", "openai_compatible", KEYPOINTS], default="gemini",
                    tooltip="gemini: Google's API. openai_compatible: OpenAI or whoever speaks like it (vLLM, Ollama, LM Studio, "
                    "llama.cpp, hosts). keypoints: sentences made from pose_keypoint, without any model or network.",
                ),
                io.String.Input(
                    "model", default="gemini-flash-latest",
                    tooltip="The model's name as the service knows it. It must take pictures. Not used by keypoints.",
                ),
                io.String.Input(
                    "base_url", default="",
                    tooltip="Empty: the service's own address. Else https://HOST/v1, or http://127.0.0.1:11434/v1 and the like on "
                    "this machine or in a private network. Never put a key in here: it is saved with every picture.",
                ),
                io.Combo.Input(
                    "mode", options=list(MODES), default="fused",
                    tooltip="fused: a model makes one prompt of both texts. concatenated: appearance, then motion, as they are. "
                    "none: no text, also where fused_prompt is given.",
                ),
                io.Combo.Input("language", options=list(LANGUAGES), default="en", tooltip="Language of the three texts."),
                io.Combo.Input(
                    "on_bad_answer", options=list(ON_BAD_ANSWER), default="error",
                    tooltip="If an answer does not keep to the form, even after one request to repair it, or a given text does "
                    "not: stop with an error, or go on with it and a warning on the node. warn takes whatever you write.",
                ),
                io.Image.Input("reference", optional=True, tooltip="One image of the character, for its appearance."),
                io.MultiType.Input(
                    "driving", types=[io.Image, io.Video], optional=True,
                    tooltip=f"The driving video, for its motion: IMAGE batch or VIDEO. The first {SECONDS:g} seconds count.",
                ),
                PoseKeypoint.Input("pose_keypoint", optional=True, tooltip="Poses of the driver, for the service keypoints."),
                *_budget_inputs(),
                _text_input("motion_text", "Taken instead of asking for the motion. Empty: asked for."),
                _text_input("appearance_text", "Taken instead of asking for the appearance. Empty: asked for."),
                _text_input(
                    "fused_prompt",
                    "Taken as the prompt, unless mode is none; then nothing is asked at all. Empty: made as mode says.",
                ),
                io.Float.Input(
                    "timeout", default=DEFAULT_LIMITS.read, min=1.0, max=86400.0, step=1.0, optional=True, advanced=True,
                    tooltip="Seconds without a word from the service after which it is given up; all tries together may take "
                    "twice as long. Raise it for a local model on a slow machine.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="fused_prompt", tooltip="For CLIP Text Encode."),
                io.String.Output(display_name="motion_text"),
                io.String.Output(display_name="appearance_text"),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, base_url: str) -> bool | str:
        from ..dreamactor_core.text.address import check_address

        try:
            if base_url:
                check_address(base_url)
        except TextError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, language: str | None, **others: Any) -> str:
        """Changes when a prompt file is edited; all else that matters is an input."""
        return _version(language)

    @classmethod
    def execute(
        cls,
        service: str,
        model: str,
        base_url: str,
        mode: str,
        language: str,
        on_bad_answer: str,
        reference: torch.Tensor | None = None,
        driving: Any = None,
        pose_keypoint: Any = None,
        driving_fps: float = 0.0,
        sample_fps: float = 4.0,
        longest_side: int = 512,
        motion_text: str | None = None,
        appearance_text: str | None = None,
        fused_prompt: str | None = None,
        timeout: float = DEFAULT_LIMITS.read,
    ) -> io.NodeOutput:
        connected = {"fused_prompt": fused_prompt, "motion_text": motion_text, "appearance_text": appearance_text}
        connected = {name: _tidied(text) for name, text in connected.items()}
        given = Texts(*(text or "" for text in connected.values()))
        bar, tell = comfy.utils.ProgressBar(3), partial(show_on_node, node_id=cls.hidden.unique_id)
        warnings = check_connected(mode, connected, _makeable(service, mode, reference, driving, pose_keypoint))
        warnings += check_given(mode, given, language, on_bad_answer)

        def step(text: str) -> str:
            bar.update(1)
            return text

        if service == KEYPOINTS:
            warnings += _without_model(mode, given)
            texts = make_texts(
                mode, given, lambda: step(_described(pose_keypoint, driving_fps, language)), lambda: "", lambda moves, looks: moves
            )
        else:
            budget = Budget(sample_fps, longest_side)

            @cache  # where nobody is asked, nothing about the service needs to be right
            def writer() -> Writer:
                return _writer(service, model, base_url, language, on_bad_answer, patience(timeout), tell, warnings)

            texts = make_texts(
                mode,
                given,
                lambda: step(writer().motion(encode(_sampled(driving, driving_fps, budget), budget), budget)),
                lambda: step(writer().appearance(encode([_one_picture(reference, budget)], budget)[0])),
                lambda moves, looks: step(writer().fuse(moves, looks)),
            )
        bar.update_absolute(3)
        for warning in warnings:
            logging.warning("DreamActor Text Fusion: %s", warning)
        tell("\n".join(f"Warning: {warning}" for warning in warnings))
        return io.NodeOutput(texts.fused, texts.motion, texts.appearance, ui={"text": warnings} if warnings else None)


def _writer(
    service: str,
    model: str,
    base_url: str,
    language: str,
    on_bad_answer: str,
    limits: Limits,
    tell: Callable[[str], None],
    warnings: list[str],
) -> Writer:
    from ..dreamactor_core.text.ask import Asker
    from ..dreamactor_core.text.cache import AnswerCache

    poll = comfy.model_management.throw_exception_if_processing_interrupted
    asker = Asker(service, model, base_url, _folder() / "keys.txt", limits, poll)
    return Writer(asker, _prompts(language), AnswerCache(_folder() / "text_cache"), on_bad_answer, tell, warnings)


def _makeable(service: str, mode: str, reference: Any, driving: Any, pose_keypoint: Any) -> set[str]:
    """The texts that can be made of what is connected, or done without: keypoints warn where they lack the looks."""
    if service == KEYPOINTS:
        can = {"fused_prompt": mode != "fused", "motion_text": pose_keypoint is not None, "appearance_text": True}
    else:
        can = {"fused_prompt": True, "motion_text": driving is not None, "appearance_text": reference is not None}
    return {name for name, possible in can.items() if possible}


def _without_model(mode: str, given: Texts) -> list[str]:
    """What keypoints cannot do: an error where a model is needed, a warning where something is left to the user."""
    if mode == "none" or given.fused:
        return []
    if mode == "fused":
        raise TextError(
            "the service keypoints cannot fuse texts: got mode fused, expected concatenated or none; choose one, or another service"
        )
    if not given.appearance:
        return ["Keypoints say nothing about looks: give appearance_text, or the prompt is of the motion only."]
    return []


def _described(pose_keypoint: Any, driving_fps: float, language: str) -> str:
    from ..dreamactor_core.poses import from_pose_keypoint
    from ..dreamactor_core.text.describe import describe_motion

    if pose_keypoint is None:
        raise TextError("there is no pose_keypoint, expected the driver's poses; connect them, or give motion_text")
    _need_rate(driving_fps, "POSE_KEYPOINT")
    return describe_motion(from_pose_keypoint(pose_keypoint), driving_fps, language)


class TextPrompt(io.ComfyNode):
    """One of the three prompts, for the host's Generate Text with a local model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorTextPrompt",
            display_name="DreamActor Text Prompt",
            category=f"{CATEGORY}/text",
            description="What Text Fusion would ask a service, for ComfyUI's own Generate Text with a local vision-language model: "
            "the prompt, and the pictures that go with it. One node for each of the three tasks.",
            search_aliases=["generate text", "local llm", "vlm", "caption prompt", "describe motion"],
            inputs=[
                io.Combo.Input(
                    "task", options=list(TASKS), default="motion",
                    tooltip="motion: shows the driver. appearance: shows the reference. fusion: puts both answers into one prompt.",
                ),
                io.Combo.Input(
                    "language", options=list(LANGUAGES), default="en", tooltip="Language of the prompt and of the answer."
                ),
                io.MultiType.Input(
                    "images", types=[io.Image, io.Video], optional=True,
                    tooltip="motion: the driving IMAGE batch or VIDEO. appearance: the reference image. fusion: nothing.",
                ),
                *_budget_inputs(),
                _text_input("motion_text", "fusion: the motion text that was generated."),
                _text_input("appearance_text", "fusion: the appearance text that was generated."),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="For prompt of Generate Text."),
                io.Image.Output(
                    display_name="images",
                    tooltip="For image (not video) of Generate Text: the sampled frames, or the reference. Nothing for fusion.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, language: str | None, **others: Any) -> str:
        """Changes when a prompt file is edited."""
        return _version(language)

    @classmethod
    def execute(
        cls,
        task: str,
        language: str,
        images: Any = None,
        driving_fps: float = 0.0,
        sample_fps: float = 4.0,
        longest_side: int = 512,
        motion_text: str | None = None,
        appearance_text: str | None = None,
    ) -> io.NodeOutput:
        prompts, budget = _prompts(language), Budget(sample_fps, longest_side)
        if task == "fusion":
            texts = {"motion_text": _tidied(motion_text), "appearance_text": _tidied(appearance_text)}
            absent = [name for name, text in texts.items() if text is None]
            if absent:
                raise TextError(
                    f"the task fusion lacks {' and '.join(absent)}, expected both texts; connect two Generate Text nodes"
                )
            check_connected("fused", texts, makeable=())
            return io.NodeOutput(prompts.fill("fusion", motion=texts["motion_text"], appearance=texts["appearance_text"]), None)
        if task == "motion":
            shown = list(_sampled(images, driving_fps, budget))
            prompt = prompts.fill("motion", frames=frames_in_words(len(shown), budget.fps, prompts.language))
        else:
            shown, prompt = [_one_picture(images, budget)], prompts.fill("appearance")
        return io.NodeOutput(prompt, torch.from_numpy(np.stack(shown)).float() / 255)
