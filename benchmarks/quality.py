"""How well the shipped LoRAs, or one of your own, follow a driver, on a held-out set, by the shipped workflows in a real server.

    python run.py bench quality --seed 0 --json quality.json

Identities and motions come from the test split, which no training seed can reach. Every pair is run twice: with its
driver, and with another pair's, which shows how much of the result is owed to the driver. The lead-in is not judged.
The workflows are changed in one setting: in `pose`, skeletons are drawn where they are (`fit = canvas`), as the truth stands there.

A LoRA of your own for the small backbone is measured in place of those that ship:

    python -m training export runs/mine
    python run.py bench quality --lora runs/dreamactor_m2_marionette_pose.safetensors --json mine.json
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.figures import FIGURES, Pair, by_pair, by_part, judge, mean_figures
from dreamactor_core.contract import PREFIX
from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from headless.atomic import atomic
from headless.client import Client, by_title, files, id_by_title
from headless.media import read_image, write_image, write_mp4
from headless.server import HostServer
from training.errors import UserError
from training.files import lora as lora_file
from training.hashing import sha256
from training.marionette.characters import Plan
from training.marionette.world import FPS, HEIGHT, LEAD_IN, WIDTH, rng_for, sample_scene
from training.plan.network import RELEASED

ROOT = Path(__file__).resolve().parents[1]
ROWS: tuple[tuple[str, Plan, Plan], ...] = (
    ("pose", "human", "human"),
    ("pose", "human", "cartoon"),
    ("rgb", "human", "human"),
    ("rgb", "human", "cartoon"),
    ("rgb", "quadruped", "quadruped"),
    ("rgb", "bird", "bird"),
    ("pose", "cartoon", "human"),
    ("pose_retarget", "human", "cartoon"),
    ("pose_retarget", "cartoon", "human"),
)
"""Variant, the driver's plan, the reference's plan. A cartoon's head is more than 1.5 times as large beside its limbs as a
human's, so the rows of both plans measure what other proportions do. `pose_retarget` runs the pairs of its `pose` row
through the workflow with Pose Retarget, which knows the reference's own pose."""
VARIANTS = tuple(dict.fromkeys(variant for variant, *_ in ROWS))
_SCALE = 4  # files are drawn larger than the panel, as the world itself is before it is averaged down


def sample_pair(seed: int, row: int, index: int) -> Pair:
    """A held-out pair: the reference stands in a pose of its own at frame 0, and the driver's motion follows."""
    variant, driver_plan, plan = ROWS[row]
    rng = rng_for("test", 1 + seed, ROWS.index((variant.removesuffix("_retarget"), driver_plan, plan)), index)
    scene = sample_scene(rng, plan)
    return Pair(scene, scene.with_character(rng, driver_plan), *scene.draw())


def shipped_loras(variants: Collection[str] = VARIANTS) -> dict[str, str]:
    """Names and sha256 of the LoRAs in the variants' workflows."""
    folder, names = ROOT / "models" / "loras", set()
    for path in _workflows(variants).values():
        nodes = json.loads(path.read_text("utf-8")).values()
        names |= {node["inputs"]["lora_name"] for node in nodes if "lora_name" in node["inputs"]}
    return {name: sha256(folder / name) for name in sorted(names)}


def samplers(variants: Collection[str] = VARIANTS) -> dict[str, dict[str, Any]]:
    """What the sampler of each variant's workflow is set to."""
    keys = ("sampler_name", "scheduler", "steps", "cfg", "seed")
    graphs = {variant: json.loads(path.read_text("utf-8")) for variant, path in _workflows(variants).items()}
    settings = {variant: by_title(graph, "Sampler")["inputs"] for variant, graph in graphs.items()}
    shifts = {variant: by_title(graph, "Shift")["inputs"]["shift"] for variant, graph in graphs.items()}
    return {variant: {key: given[key] for key in keys} | {"shift": shifts[variant]} for variant, given in settings.items()}


def _workflows(variants: Collection[str] = VARIANTS) -> dict[str, Path]:
    return {v: ROOT / "workflows" / "api" / f"marionette_{v}.json" for v in sorted(variants)}


def _write_poses(path: Path, joints: np.ndarray) -> None:
    poses = from_body_joints(joints, HEIGHT, WIDTH)
    path.write_text(json.dumps({"frames": to_pose_keypoint(poses), "frame_ms": 1000 / FPS}))


class Runner:
    """Runs the shipped workflow of a variant on one reference and one driver. `lora`: name of one to use in place of its own."""

    def __init__(self, client: Client, folder: Path, lora: str | None = None) -> None:
        self.client, self.folder = client, folder
        self.graphs = {variant: json.loads(path.read_text("utf-8")) for variant, path in _workflows().items()}
        if lora:
            for graph in self.graphs.values():
                by_title(graph, "Motion LoRA")["inputs"]["lora_name"] = lora

    def put(self, pair: Pair, variant: str, name: str) -> tuple[str, str, str]:
        """Write reference, driver and truth files into the server's input folder; returns their names there."""
        large = HEIGHT * _SCALE, WIDTH * _SCALE
        reference, driver, truth = (self.folder / f"{name}{end}" for end in ("_ref.png", "_drive.mp4", "_truth.mp4"))
        drawn = pair.scene.draw(*large)[0]
        write_image(reference, drawn[0])
        write_mp4(truth, drawn[LEAD_IN:], FPS, crf=8)
        if variant.startswith("pose"):
            driver = driver.with_suffix(".json")
            _write_poses(driver, pair.driver.keypoints()[LEAD_IN:])
            _write_poses(reference.with_suffix(".json"), pair.scene.keypoints()[:1])
        else:
            write_mp4(driver, pair.driver.draw(*large)[0][LEAD_IN:], FPS, crf=8)
        return reference.name, driver.name, truth.name

    def run(self, variant: str, reference: str, driver: str, text: str, truth: str | None = None) -> list[np.ndarray]:
        """Result frames, and with `truth` also the truth after a round trip through the VAE; RGB uint8."""
        graph = copy.deepcopy(self.graphs[variant])
        by_title(graph, "Reference")["inputs"]["image"] = reference
        by_title(graph, "Prompt")["inputs"]["text"] = text
        if variant.startswith("pose"):
            by_title(graph, "Driving poses")["inputs"]["poses"] = driver
            if variant == "pose_retarget":
                by_title(graph, "Reference poses")["inputs"]["poses"] = Path(reference).with_suffix(".json").name
            else:
                by_title(graph, "Skeleton")["inputs"]["fit"] = "canvas"  # the world's characters fill their frame already
        else:
            by_title(graph, "Driving video")["inputs"]["file"] = driver
        for title in ("Result", "Composite preview"):
            del graph[id_by_title(graph, title)]
        decode = id_by_title(graph, "Decode")
        graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": [decode, 0]}}
        if truth is not None:
            vae = graph[decode]["inputs"]["vae"]
            graph["load"] = {"class_type": "LoadVideo", "inputs": {"file": truth}}
            graph["frames"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["load", 0]}}
            small = {"image": ["frames", 0], "upscale_method": "area", "width": WIDTH, "height": HEIGHT, "crop": "disabled"}
            graph["small"] = {"class_type": "ImageScale", "inputs": small}
            graph["encode"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["small", 0], "vae": vae}}
            graph["decode"] = {"class_type": "VAEDecode", "inputs": {"samples": ["encode", 0], "vae": vae}}
            graph["round"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
        outputs = self.client.run(graph)
        return [self._frames(outputs[node]) for node in (("save", "round") if truth else ("save",))]

    def _frames(self, output: dict[str, Any]) -> np.ndarray:
        pictures = []
        for entry in files(output):
            path = self.client.download(entry, self.folder / "result" / entry["filename"])
            pictures.append(read_image(path))
            path.unlink()
        return np.stack(pictures)


def _sheet(path: Path, rows: list[np.ndarray]) -> None:
    write_image(path, cv2.resize(np.concatenate(rows, 0), None, fx=2, fy=2))


@contextmanager
def _server(lora: Path | None) -> Iterator[HostServer]:
    """A ComfyUI, which finds a given LoRA before others of its name."""
    if lora is None:
        with HostServer() as server:
            yield server
        return
    with tempfile.TemporaryDirectory() as folder:
        # a copy, alone in its folder: ComfyUI walks through all that lies in one, again after each change
        copied = Path(folder) / "loras" / lora.name
        copied.parent.mkdir()
        shutil.copyfile(lora, copied)
        config = Path(folder) / "paths.yaml"
        # by default ComfyUI looks there last, and takes a file of that name in its user's own folder
        config.write_text(json.dumps({"bench": {"base_path": folder, "loras": "loras", "is_default": True}}), "utf-8")
        with HostServer(arguments=["--extra-model-paths-config", str(config)]) as server:
            yield server


def measure(
    seed: int, count: int, sheet: Path | None = None, variants: Collection[str] = VARIANTS, lora: Path | None = None
) -> Iterator[dict[str, Any]]:
    """One dict a row of ROWS that is of `variants`, as soon as it is known: variant, driver, reference, n, the mean of each of
    FIGURES, None where no pair has it, `parts` with what `by_part` gives, and what `by_pair` gives. `lora`: in place of the
    workflows' own."""
    pictures = []
    with _server(lora) as server:
        runner = Runner(Client(server.url), server.input_dir, lora.name if lora else None)
        for row, (variant, driver_plan, plan) in enumerate(ROWS):
            if variant not in variants:
                continue
            started = time.time()
            pairs = [sample_pair(seed, row, index) for index in range(count)]
            names = [runner.put(pair, variant, f"{row}_{index}") for index, pair in enumerate(pairs)]
            figures = []
            for index, pair in enumerate(pairs):
                reference, driver, truth = names[index]
                result, round_trip = runner.run(variant, reference, driver, pair.scene.describe(), truth)
                other = runner.run(variant, reference, names[(index + 1) % count][1], pair.scene.describe())[0]
                figures.append(judge(pair, result, other, round_trip))
                if index < 2:
                    shown = (pair.truth[LEAD_IN:], result, pair.driver.draw()[0][LEAD_IN:])
                    pictures.append(np.concatenate([np.concatenate([pair.truth[0], *f[::4]], 1) for f in shown], 0))
            found = {"variant": variant, "driver": driver_plan, "reference": plan, "n": count, **mean_figures(figures)}
            print(json.dumps(found), f"{time.time() - started:.0f} s", file=sys.stderr, flush=True)
            if sheet is not None:
                _sheet(sheet, pictures)
            yield found | {"parts": by_part(figures, plan)} | by_pair(figures)


def _lost(path: Path | None, about: dict[str, Any], variants: Collection[str], own: bool) -> str:
    """What of a file that an earlier run wrote this one, which is `about` these, would replace by something else; empty where there
    is nothing. LoRAs that ship may have changed since, one's `own` may not: `export` names many alike."""
    if path is None or not path.exists():
        return ""
    try:
        found = json.loads(path.read_text("utf-8"))
        others = sorted({row["variant"] for row in found["rows"]} - set(variants))
        seed, pairs, loras = found["seed"], found["pairs"], about["loras"]
        measured = {name for name, hashed in found["loras"].items() if loras.get(name) != hashed and (own or name not in loras)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(
            f"error: {path} can't be read ({error!r}), expected what an earlier run wrote; name another file, or delete this one"
        )
    if others:
        return f"rows of {', '.join(others)}"
    if (seed, pairs) != (about["seed"], about["pairs"]):
        return f"rows of --seed {seed} --pairs {pairs}"
    return f"rows of other LoRAs, {', '.join(sorted(measured))}" if measured else ""


def _variants_of(path: Path) -> tuple[str, ...]:
    """The variants that a LoRA file is for. Raises UserError when it is not one that can be measured here."""
    file = lora_file.read(path)
    if PREFIX + "variant" not in file.metadata:
        raise UserError(f"{path} does not say what it was trained for, expected a LoRA that `python -m training export` wrote")
    contract = file.contract()
    if contract.backbone != "marionette":
        raise UserError(f"{path} is a LoRA for {contract.backbone}, expected one that was trained with `preset: marionette`")
    lora_file.check(file, contract, lora_file.expected_shapes("marionette", RELEASED["marionette"]))
    lead_in = round(contract.lead_in * contract.fps)
    if (contract.fps, lead_in) != (FPS, LEAD_IN):
        raise UserError(
            f"{path} was trained at {contract.fps:g} fps with a lead-in of {lead_in} frames, expected {FPS} and {LEAD_IN}, as the "
            f"drawn world has them: train it with the preset's `clip`"
        )
    return tuple(variant for variant in VARIANTS if variant.startswith(contract.variant))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="draws another held-out set")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--pairs", type=int, default=12, help=f"pairs a row; there are {len(ROWS)} rows in all")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="rows of these only")
    parser.add_argument("--lora", type=Path, help="measure this file in place of the LoRAs that ship, in its variant's workflows")
    parser.add_argument("--sheet", type=Path, help="write a picture: truth, result and driver of two pairs a row")
    args = parser.parse_args()
    if args.pairs < 2:
        parser.error(f"--pairs is {args.pairs}, expected at least 2: each pair lends its driver to another")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}, expected 0 or more")
    try:
        able = VARIANTS if args.lora is None else _variants_of(args.lora)
    except UserError as error:
        parser.error(f"--lora: {error}")
    args.variants = args.variants or able
    if wrong := sorted(set(args.variants) - set(able)):
        parser.error(
            f"--variants has {', '.join(wrong)}, expected of {', '.join(able)}, which {args.lora.name} is for; leave --variants "
            f"out to measure all of them"
        )
    rows: list[dict[str, Any]] = []
    loras = {args.lora.name: sha256(args.lora)} if args.lora else shipped_loras(args.variants)
    about = {"loras": loras, "samplers": samplers(args.variants), "seed": args.seed, "pairs": args.pairs}
    found = about | {"rows": rows}
    if lost := _lost(args.json, about, args.variants, args.lora is not None):
        parser.error(f"{args.json} holds {lost}, that this run would replace; name another file, or delete this one")
    for row in measure(args.seed, args.pairs, args.sheet, args.variants, args.lora):
        rows.append(row)
        if args.json:  # after every row: what is measured is not lost
            with atomic(args.json) as partial:
                partial.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{'variant':14}{'driver':11}{'reference':11}" + "".join(f"{key:>15}" for key in FIGURES))
    for row in rows:
        means = ("-" if row[key] is None else f"{row[key]:.3f}" for key in FIGURES)
        print(f"{row['variant']:14}{row['driver']:11}{row['reference']:11}" + "".join(f"{mean:>15}" for mean in means))


if __name__ == "__main__":
    main()
