"""Any pose-driven workflow as the teacher, on headless ComfyUI servers: nobody must train a pose LoRA first."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import requests
import websocket

from dreamactor_core.clips import ClipSpec, resample_by_timestamp
from dreamactor_core.poses import PoseSequence, to_pose_keypoint
from dreamactor_core.skeleton import draw_skeleton
from headless.atomic import atomic
from headless.client import Client, Prompt, PromptFailed, PromptRejected, ServerLost, files
from headless.media import write_image
from training.config import Config
from training.errors import UserError, of_device
from training.hashing import sha256
from training.synthesize import inputs
from training.synthesize.plan import Needs, Package, Teaching, Unit
from training.synthesize.video import read_timed
from training.synthesize.worker import Lost
from training.video import write_clip

FILES = ("reference", "reference_poses", "driving_poses", "driving_skeleton", "driving_video")
"""Inputs that take the name of a file in the server's input folder."""

VALUES: dict[str, Callable[[Unit, ClipSpec], str | int | float]] = {
    "prompt": lambda unit, spec: unit.prompt,
    "seed": lambda unit, spec: unit.seed,
    "width": lambda unit, spec: unit.source.width,
    "height": lambda unit, spec: unit.source.height,
    "frames": lambda unit, spec: spec.driven,
    "frames_with_lead_in": lambda unit, spec: spec.frames,
    "fps": lambda unit, spec: spec.fps,
}
"""Inputs that take a value."""

OUTPUT = "output"
VERSION = 1
_DRIVERS = tuple(name for name in FILES if name.startswith("driving_"))
_VIDEOS = (".mp4", ".webm", ".mkv", ".mov")


@dataclass(frozen=True)
class Place:
    """An input of a node, or, without `name`, the node itself."""

    node: str
    name: str = ""


def read_workflow(path: Path) -> Prompt:
    """A workflow in API format. Raises UserError."""
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"synthesize.workflow {path} can't be read as JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("nodes"), list):
        raise UserError(f"{path} is a workflow as the editor saves it, expected API format: in ComfyUI, Workflow > Export (API)")
    if not isinstance(found, dict) or not all(isinstance(n, dict) and "class_type" in n and "inputs" in n for n in found.values()):
        raise UserError(f"{path} is no workflow in API format (node ids with class_type and inputs); use Workflow > Export (API)")
    return found


def _title(node: dict[str, Any]) -> str:
    return str(node.get("_meta", {}).get("title", node["class_type"]))


def _node(workflow: Prompt, name: str, key: str) -> str:
    """A node's id by its id or title. Raises UserError naming the titles that there are."""
    if name in workflow:
        return name
    found = [number for number, node in workflow.items() if _title(node) == name]
    if len(found) != 1:
        titles = ", ".join(sorted({_title(node) for node in workflow.values()}))
        raise UserError(f"synthesize.inputs.{key}: {len(found)} nodes are titled {name!r}, expected one; there are: {titles}")
    return found[0]


def _place(workflow: Prompt, key: str, text: str) -> Place:
    node, dot, name = text.rpartition(".")
    if not dot:
        raise UserError(f"synthesize.inputs.{key} is {text!r}, expected a node's title or id, a dot and its input's name")
    place = Place(_node(workflow, node, key), name)
    there = workflow[place.node]["inputs"]
    if name not in there:
        raise UserError(f"synthesize.inputs.{key}: the node {node!r} has no input {name!r}; it has {', '.join(sorted(there))}")
    return place


def places(workflow: Prompt, mapping: Mapping[str, str | tuple[str, ...]]) -> dict[str, tuple[Place, ...]]:
    """Where each of our inputs goes, to one place or several.

    Raises UserError for a name of ours, a node or an input that is not there.
    """
    known = (*FILES, *VALUES, OUTPUT)
    found: dict[str, tuple[Place, ...]] = {}
    for key, given in mapping.items():
        if key not in known:
            raise UserError(f"synthesize.inputs has {key!r}, expected names out of {', '.join(known)}")
        texts = (given,) if isinstance(given, str) else given
        if key == OUTPUT:
            if len(texts) != 1:
                raise UserError(f"synthesize.inputs.output names {len(texts)} nodes, expected the one that saves the video")
            found[key] = (Place(_node(workflow, texts[0], key)),)
        else:
            found[key] = tuple(_place(workflow, key, text) for text in texts)
    if OUTPUT not in found:
        raise UserError("synthesize.inputs has no `output`, expected the title of the node that saves the video")
    if "reference" not in found:
        raise UserError("synthesize.inputs has no `reference`, expected the input that takes the name of the character's picture")
    drivers = [key for key in _DRIVERS if key in found]
    if len(drivers) != 1:
        raise UserError(f"synthesize.inputs has {' and '.join(drivers) or 'no driver'}, expected one of {', '.join(_DRIVERS)}")
    return found


def leading_to(workflow: Prompt, output: str) -> Prompt:
    """The nodes that the output needs: previews beside it cost time, and a text service that is no longer asked costs money."""
    kept, left = set(), [output]
    while left:
        name = left.pop()
        if name not in kept:
            kept.add(name)
            links = (value for value in workflow[name]["inputs"].values() if isinstance(value, list) and len(value) == 2)
            left += [str(origin) for origin, _ in links if str(origin) in workflow]
    return {name: node for name, node in workflow.items() if name in kept}


def _retargets(config: Config, where: Mapping[str, object]) -> bool:
    """Whether we retarget the poses: a workflow that takes the reference's poses does it by itself."""
    return config.synthesize.retarget and "reference_poses" not in where and "driving_video" not in where


def _is_here(address: str) -> bool:
    """Whether a Ray cluster may be this machine's own; `auto` and `local` are names of Ray's for one."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname
    return address in ("auto", "local") or host in ("localhost", "127.0.0.1", "::1")


def check(config: Config) -> Teaching:
    """All that can be known to be wrong before a server is asked. Raises UserError."""
    settings = config.synthesize
    if settings.workflow is None:
        raise UserError("synthesize.workflow is not given, expected a workflow in API format for teacher: comfyui")
    if settings.address is not None and not settings.servers and not _is_here(settings.address):
        raise UserError(
            f"synthesize.servers is empty and synthesize.address is {settings.address}, expected servers that the cluster's "
            f"machines reach: those that are started here answer on this machine alone"
        )
    where = places(read_workflow(settings.workflow), settings.inputs)
    retargets = _retargets(config, where)
    about = {
        "version": VERSION, "teacher": "comfyui", "workflow": sha256(settings.workflow), "inputs": sorted(settings.inputs.items()),
        "retarget": retargets, "lead_in": config.clip.spec().lead_in,
    }  # fmt: skip
    needs = Needs("driving_video" not in where, "driving_video" in where, retargets or "reference_poses" in where)
    return Teaching(hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest(), needs)


def aligned(frames: np.ndarray, times: list[float], end: float, unit: Unit, spec: ClipSpec) -> np.ndarray:
    """A result as V_o: the target's rate, by timestamp, its size, and its driven frames; uint8 (spec.driven, H, W, 3).

    The first frame of a result is the first driven one: a workflow with a lead-in of its own cuts it off itself, as ours do.

    Raises:
        UserError: it is too short, or of another aspect ratio: by more than a pixel when brought to the target's width.
    """
    height, width = unit.source.height, unit.source.width
    got = frames.shape[1:3]
    if abs(got[0] * width / got[1] - height) > 1:
        raise UserError(
            f"the workflow's result is {got[1]}x{got[0]}, expected the aspect ratio of {width}x{height}: map width and height in "
            f"synthesize.inputs, or set the workflow's size"
        )
    picks = resample_by_timestamp(times, end, spec.fps)
    if len(picks) < spec.driven:
        raise UserError(
            f"the workflow's result has {len(frames)} frames in {end - times[0]:.2f} s, that is {len(picks)} at {spec.fps:g} fps, "
            f"expected the {spec.driven} driven ones ({spec.driven / spec.fps:.2f} s): map `frames` and `fps` in synthesize.inputs"
        )
    chosen = frames[picks[: spec.driven]]
    if got == (height, width):
        return chosen
    way = cv2.INTER_AREA if got[0] > height else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=way) for frame in chosen])


class ComfyTeacher:
    """One server, driven with one workflow.

    Args:
        results: The server's output folder where it is ours: what is fetched is removed from it.
    """

    def __init__(self, config: Config, address: str, results: Path | None) -> None:
        if config.synthesize.workflow is None:
            raise UserError("synthesize.workflow is not given")
        self.config, self.results = config, results
        self.workflow = read_workflow(config.synthesize.workflow)
        self.places = places(self.workflow, config.synthesize.inputs)
        self.retargets = _retargets(config, self.places)
        self.client = Client(address if "://" in address else f"http://{address}")
        self._there: set[str] = set()

    def make(self, package: Package) -> Iterator[tuple[Unit, np.ndarray | str]]:
        """Frames of each wanted unit, or why there are none. Raises Lost when the server does not answer, or its GPU failed."""
        for unit in package.units:
            if unit.id not in package.wanted:
                continue
            made: np.ndarray | str
            try:
                with tempfile.TemporaryDirectory(prefix="dreamactor-pair-") as folder:
                    made = self._one(unit, Path(folder))
            except (ServerLost, requests.ConnectionError, requests.Timeout, websocket.WebSocketException, ConnectionError) as error:
                raise Lost(f"the server {self.client.url} is gone ({error})") from error
            except (PromptRejected, PromptFailed, requests.HTTPError, ValueError) as error:
                made = str(error)
                if of_device(made):
                    raise Lost(f"the server {self.client.url} can't go on ({made})") from error
            yield unit, made

    def _one(self, unit: Unit, folder: Path) -> np.ndarray:
        spec = self.config.clip.spec(unit.source.frames)
        prompt = copy.deepcopy(self.workflow)
        written = self._written(unit, spec, folder)
        for key, all_places in self.places.items():
            if key == OUTPUT:
                continue
            value = self._upload(written[key]) if key in written else VALUES[key](unit, spec)
            for place in all_places:
                prompt[place.node]["inputs"][place.name] = value
        output = self.places[OUTPUT][0].node
        prompt = leading_to(prompt, output)
        entries = [e for e in files(self.client.run(prompt).get(output, {})) if Path(e["filename"]).suffix.lower() in _VIDEOS]
        if len(entries) != 1:
            raise UserError(
                f"the node {_title(prompt[output])!r} made {len(entries)} videos, expected one ({', '.join(_VIDEOS)}); let "
                f"synthesize.inputs.output name a node that saves a video"
            )
        result = self.client.download(entries[0], folder / f"result{Path(entries[0]['filename']).suffix}")
        if self.results is not None:
            (self.results / entries[0].get("subfolder", "") / entries[0]["filename"]).unlink(missing_ok=True)
        return aligned(*read_timed(result), unit, spec)

    def _written(self, unit: Unit, spec: ClipSpec, folder: Path) -> dict[str, Path]:
        """The files that the workflow is given, by the names of our inputs."""
        _, height, width = unit.shape
        source = inputs.source_frames(unit.source)
        made = {"reference": folder / "reference.png"}
        write_image(made["reference"], inputs.character(unit.reference, height, width))
        if "reference_poses" in self.places:
            own = inputs.reference_poses(unit.reference, height, width)
            made["reference_poses"] = _write_poses(folder / "reference.json", own, spec.fps)
        if "driving_video" in self.places:
            made["driving_video"] = folder / "driving.mkv"
            write_clip(made["driving_video"], source[spec.lead_in :], spec.fps, lossless=True)
            return made
        poses = inputs.driving_poses(unit.source, unit.reference, spec, self.retargets)
        if "driving_poses" in self.places:
            made["driving_poses"] = _write_poses(folder / "driving.json", poses, spec.fps)
        else:
            made["driving_skeleton"] = folder / "driving.mkv"
            write_clip(made["driving_skeleton"], draw_skeleton(poses, height, width), spec.fps, lossless=True)
        return made

    def _upload(self, path: Path) -> str:
        """Under the name of its content, once: references come again and again."""
        name = f"dreamactor_{sha256(path)[:24]}{path.suffix}"
        if name not in self._there:
            given = self.client.upload(path, name)
            if given != name:
                return given  # another file of that name; never seen to happen with names that are hashes
            self._there.add(name)
        return name


def _write_poses(path: Path, poses: PoseSequence, fps: float) -> Path:
    with atomic(path) as partial:
        partial.write_text(json.dumps({"frames": to_pose_keypoint(poses), "frame_ms": 1000 / fps}), "utf-8")
    return path
