"""Sample sheets: held-out samples run through a ComfyUI with the LoRA as it stands, by the workflow that its users run."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import yaml

from bootstrap import SetupError
from bootstrap.host import find_host
from headless.client import Client, Prompt, by_title, files, id_by_title
from headless.media import read_image, write_image, write_mp4
from headless.server import HostServer
from training.config import Config
from training.errors import UserError
from training.latents.encode import read_driver, read_reference, read_target
from training.latents.split import split, usable
from training.manifest import Sample

ROOT = Path(__file__).resolve().parents[2]
_SHOWN = 6  # frames of a clip on a sheet
_TITLES = ("Motion LoRA", "Reference", "Prompt", "In-context conditioning", "Decode")
_NEEDS = "train.sample_sheets needs held-out samples"
_MEND = "name some in cache.validation, or set train.sample_sheets: 0"
_OF_DRIVER = {"pose": ("Skeleton",), "rgb": ("Driving video",)}


def workflow_of(settings: Config) -> Prompt:
    """The API workflow that a run's samples go through. Raises UserError when it can't be read."""
    path = settings.train.sample_workflow or ROOT / "workflows" / "api" / f"marionette_{settings.variant}.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"train.sample_workflow: {path} can't be read as an API workflow ({error})") from error


def _held_out(settings: Config) -> list[Sample]:
    """By this file's section `cache`. Raises UserError: a manifest can't be used, which a run on caches of others may lack."""
    try:
        if settings.cache.validation is not None:
            return usable(settings.cache.validation, settings.variant)[0]
        return split(settings)["validation"]
    except UserError as error:
        raise UserError(f"{_NEEDS}: {error}; {_MEND}") from error


class Sheets:
    """Makes the sheets of a run, of held-out samples.

    Args:
        cached: Ids and sources of what the run's caches have to train on, which may be another run's: none of these is shown.

    Raises UserError at once when workflow, ComfyUI or held-out clips are missing.
    """

    def __init__(self, settings: Config, folder: Path, cached: Collection[str] = ()) -> None:
        self.settings, self.folder, self.graph = settings, folder, workflow_of(settings)
        for title in _TITLES + _OF_DRIVER[settings.variant]:
            try:
                by_title(self.graph, title)
            except KeyError as error:
                where = f"train.sample_workflow, for a LoRA of variant {settings.variant}"
                raise UserError(f"{where}: {error.args[0]}; name a workflow that has it, or set sample_sheets: 0") from error
        try:
            find_host()
        except SetupError as error:
            raise UserError(f"train.sample_sheets needs a ComfyUI: {error}; or set sample_sheets: 0") from error
        samples = _held_out(settings)
        unseen = [sample for sample in samples if sample.id not in cached and sample.source_sha256 not in cached]
        self.samples = unseen[: settings.train.sample_sheets]
        if not self.samples:
            each = ", and the run's caches have each of them, or another clip of its source file, to train on" if samples else ""
            raise UserError(f"{_NEEDS}; this file's section `cache` holds out {len(samples) or 'none'}{each}; {_MEND}")

    def make(self, lora: Path, out: Path) -> None:
        """Write a sheet: each sample's truth above its result, the reference first."""
        places = self.folder / ".host_paths.yaml"
        # by default ComfyUI looks there last, and takes a file of that name in its user's own folder
        run = {"base_path": str(lora.parent.resolve()), "loras": ".", "is_default": True}
        places.write_text(yaml.safe_dump({"run": run}), "utf-8")
        try:
            with HostServer(arguments=["--extra-model-paths-config", str(places.resolve())]) as server:
                client = Client(server.url)
                rows = [self._rows(client, server, sample, lora.name) for sample in self.samples]
        finally:
            places.unlink(missing_ok=True)
        height, width = max(r.shape[0] for r in rows), max(r.shape[1] for r in rows)
        padded = [np.pad(r, ((0, height - r.shape[0]), (0, width - r.shape[1]), (0, 0))) for r in rows]
        write_image(out, np.concatenate(padded, 0))

    def _rows(self, client: Client, server: HostServer, sample: Sample, lora: str) -> np.ndarray:
        spec = self.settings.clip.spec(sample.frames)
        target = read_target(sample)
        reference = read_reference(sample, target)
        graph = copy.deepcopy(self.graph)
        write_image(server.input_dir / "sample_reference.png", reference)
        by_title(graph, "Motion LoRA")["inputs"]["lora_name"] = lora
        by_title(graph, "Reference")["inputs"]["image"] = "sample_reference.png"
        by_title(graph, "Prompt")["inputs"]["text"] = sample.caption
        size = {"width": sample.width, "height": sample.height, "length": sample.frames}
        by_title(graph, "In-context conditioning")["inputs"].update(size)
        if self.settings.variant == "pose":
            data = json.loads(sample.poses.read_text("utf-8"))
            frames = (data["frames"] if isinstance(data, dict) else data)[spec.lead_in :]
            text = json.dumps({"frames": frames, "frame_ms": 1000 / sample.fps})
            (server.input_dir / "sample_poses.json").write_text(text, "utf-8")
            # the sample's own poses, also where a workflow finds poses in a video and retargets them
            graph["poses"] = {"class_type": "DreamActorLoadPoses", "inputs": {"poses": "sample_poses.json", "fps": 0}}
            by_title(graph, "In-context conditioning")["inputs"]["driving_fps"] = ["poses", 1]
            by_title(graph, "Skeleton")["inputs"]["pose_keypoint"] = ["poses", 0]
            # normalised by their box where most of training was
            fit = "people" if self.settings.cache.augment.normalise > 0.5 else "canvas"
            by_title(graph, "Skeleton")["inputs"].update(width=sample.width, height=sample.height, fit=fit)
        else:
            write_mp4(server.input_dir / "sample_drive.mp4", read_driver(sample, spec), sample.fps, crf=8)
            by_title(graph, "Driving video")["inputs"]["file"] = "sample_drive.mp4"
        decode = id_by_title(graph, "Decode")
        for key in [k for k, node in graph.items() if node["class_type"].startswith(("Save", "Preview"))]:
            del graph[key]
        graph["sheet"] = {"class_type": "PreviewImage", "inputs": {"images": [decode, 0]}}
        outputs = client.run(graph)
        pictures = []
        for entry in files(outputs["sheet"]):
            path = client.download(entry, server.folder / entry["filename"])
            pictures.append(read_image(path))
        truth = target[spec.lead_in :]
        chosen = np.linspace(0, min(len(truth), len(pictures)) - 1, _SHOWN).round().astype(int)
        rows = [np.concatenate([reference, *(clip[k] for k in chosen)], 1) for clip in (truth, pictures)]
        return np.concatenate(rows, 0)
