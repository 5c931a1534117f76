"""`run.py demo`: queues the shipped workflows on a real ComfyUI without a window, and shows what comes out.

Writes into OUT: demo.mp4 (reference, driver and result side by side), demo.png (a contact sheet) and, where the true
answer is known, metrics.json: `{"jobs": [{"job": title, **figures}], "keys": what the figures mean}`.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import requests
import torch

from bootstrap import SetupError
from dreamactor_core.clips import fit_frames

from .atomic import atomic
from .client import Client, Progress, PromptFailed, PromptRejected, ServerLost, by_title, files, id_by_title
from .jobs import DRIVERS, LIST_FPS, InputError, Job, as_video, check, draw_poses, plan, poses_beside, read_poses, read_workflow
from .media import MediaError, Video, read_image, read_video, sample_video, write_image, write_mp4
from .metrics import KEYS, against_truth
from .server import HostServer, ServerDied, find_host
from .sheet import Block, cell_size, contact_sheet, film

_POSE_DRAW = "DreamActorPoseDraw"
_FILM_CELL = 384  # skeletons are drawn for the film's cells, which are larger than the sheet's


@dataclass(frozen=True, eq=False)
class Done:
    """A finished job: its pictures, its frame rate, and its figures where the truth is known."""

    block: Block
    fps: float
    figures: dict[str, float] | None


class ProgressLine:
    """Shows progress on one line of a terminal that is rewritten; in a log, one line for every step."""

    def __init__(self, label: str) -> None:
        self._label, self._live = label, sys.stdout.isatty()

    def __call__(self, progress: Progress) -> None:
        steps = f" {progress.value}/{progress.maximum}" if progress.maximum else ""
        if self._live:
            print(f"\r\x1b[K{self._label} {progress.title}{steps}", end="", flush=True)
        else:
            print(f"{self._label} {progress.title}{steps}", flush=True)

    def end(self, text: str) -> None:
        """Replace the line by a last one."""
        print(f"{chr(13) + chr(27) + '[K' if self._live else ''}{self._label} {text}", flush=True)


def fill_in(prompt: dict[str, dict[str, Any]], job: Job, upload: Callable[[Path, str], str]) -> None:
    """Put the job's files into its workflow."""
    reference = upload(job.reference, f"reference{job.reference.suffix.lower()}")
    by_title(prompt, "Reference")["inputs"]["image"] = reference
    drive = upload(job.drive, f"drive{job.drive.suffix.lower()}")
    inputs = by_title(prompt, DRIVERS[job.variant])["inputs"]
    if job.variant == "rgb":
        inputs["file"] = drive
        return
    inputs["poses"] = drive
    if job.reference_poses is not None:
        by_title(prompt, "Reference poses")["inputs"]["poses"] = upload(job.reference_poses, "reference_poses.json")
    if read_poses(job.drive)[1] is None and not inputs.get("fps"):
        print(f"{job.drive.name} does not say its frame rate: taken as {LIST_FPS:g} fps (frame_ms would say it)")
        inputs["fps"] = LIST_FPS


def _driver_frames(job: Job, prompt: dict[str, dict[str, Any]], times: Sequence[float], size: tuple[int, int]) -> list[np.ndarray]:
    if job.variant == "rgb":
        return sample_video(job.drive, times)
    drawing = [node["inputs"] for node in prompt.values() if node["class_type"] == _POSE_DRAW]
    options = dict(drawing[0]) if drawing else {}
    if job.reference_poses is not None:
        options["fit"] = "people"  # the driver's own skeleton, before it is retargeted onto the reference's canvas
    return draw_poses(job.drive, times, *size, options)


def _truth_frames(path: Path, result: Video) -> np.ndarray:
    """The truth at the result's moments and size; a larger truth is averaged down, as the drawn world itself is."""
    height, width = result.frames.shape[1:3]
    frames = sample_video(path, result.times)
    if frames[0].shape[0] * width != frames[0].shape[1] * height:
        raise InputError(f"{path} is {frames[0].shape[1]}x{frames[0].shape[0]}, expected the result's shape {width}x{height}")
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def perform(job: Job, client: Client, folder: Path, on_progress: Callable[[Progress], None] | None = None) -> Done:
    """Run one job on a server and fetch what it made. `folder` holds what is downloaded."""
    prompt = read_workflow(job.workflow)
    fill_in(prompt, job, client.upload)
    outputs = client.run(prompt, on_progress)
    made = files(outputs.get(id_by_title(prompt, "Result"), {}))
    if not made:
        raise InputError(f"{job.workflow.name}: the node titled 'Result' saved nothing; expected a SaveVideo there")
    result = read_video(client.download(made[0], folder / f"{job.variant}-result.mp4"))
    height, width = result.frames.shape[1:3]
    driving = _driver_frames(job, prompt, result.times, cell_size(result.frames[0], _FILM_CELL))
    reference = _cropped(read_image(job.reference), height, width)
    rows: list[tuple[str, Sequence[np.ndarray]]] = [("driver", driving), ("result", list(result.frames))]
    figures = None
    if job.truth is not None:
        truth = _truth_frames(job.truth, result)
        figures = against_truth(result.frames, truth, reference)
        rows.append(("truth", list(truth)))
    return Done(Block(job.title, reference, rows, result.times), result.fps, figures)


def _cropped(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The reference as the nodes show it to the network."""
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    fitted = fit_frames(pixels, height, width, "crop")[0].permute(1, 2, 0)
    return ((fitted + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def write_results(done: Sequence[Done], out: Path) -> list[Path]:
    """Write demo.mp4, demo.png and, when there are figures, metrics.json; returns what was written."""
    fps = max(job.fps for job in done)
    blocks = [job.block for job in done]
    write_mp4(out / "demo.mp4", film(blocks, fps, _FILM_CELL), fps)
    write_image(out / "demo.png", contact_sheet(blocks))
    metrics = out / "metrics.json"
    measured = [{"job": job.block.title, **job.figures} for job in done if job.figures is not None]
    if not measured:
        metrics.unlink(missing_ok=True)  # an earlier run's figures would be taken for this one's
        return [out / "demo.mp4", out / "demo.png"]
    # JSON knows neither inf nor nan
    finite = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in measured]
    with atomic(metrics) as partial:
        partial.write_text(json.dumps({"jobs": finite, "keys": KEYS}, indent=2) + "\n", "utf-8")
    return [out / "demo.mp4", out / "demo.png", metrics]


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Raises InputError in place of OSError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--out: {out} cannot be written to ({error.strerror}), expected a folder that you may write to; name another one"
        ) from error


def run(reference: Path | None, drive: Path | None, out: Path) -> list[Path]:
    """The whole demo; returns the files written. Raises InputError when a file cannot be used or `out` not be written to."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file, expected a folder; name another one")
    log = out / "comfyui.log"
    with _writing(out):
        log.unlink(missing_ok=True)  # an earlier run's would be taken for this one's
    jobs = plan(reference, drive)
    for job in jobs:
        check(job)
        if job.variant == "pose" and job.reference_poses is None:
            print(
                f"{job.reference.name}: its pose ({poses_beside(job.reference).name}) is not beside it, so the driver keeps its "
                f"own proportions; with it, the motion is retargeted onto the character"
            )
    host = find_host()
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        log.touch()  # known before the server starts
        log.unlink()
    with tempfile.TemporaryDirectory(prefix="dreamactor-demo-") as temporary:
        jobs = [as_video(job, Path(temporary)) for job in jobs]
        with HostServer(host, log=log) as server:
            print(f"ComfyUI is running on the {server.device}", flush=True)
            client, done = Client(server.url), []
            for number, job in enumerate(jobs, 1):
                line, began = ProgressLine(f"[{number}/{len(jobs)}] {job.title}:"), time.monotonic()
                try:
                    done.append(perform(job, client, Path(temporary), line))
                except (ServerLost, requests.RequestException):
                    server.check_alive(2)  # says more, when the process has died
                    raise
                line.end(f"done in {time.monotonic() - began:.0f} s")
        with _writing(out):
            written = write_results(done, out)
    log.unlink()
    return written


_EXPECTED = (InputError, MediaError, SetupError, PromptRejected, PromptFailed, ServerDied, ServerLost)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="headless.demo", description="Animates a character in a real ComfyUI.")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--out", type=Path, default=Path("demo_out"))
    options = parser.parse_args(arguments)
    # as for Ctrl-C: the server must be ended too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        written = run(options.reference, options.drive, options.out)
    except (*_EXPECTED, requests.RequestException) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        if (options.out / "comfyui.log").is_file():
            print(f"ComfyUI's log: {options.out / 'comfyui.log'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print("\n".join(f"wrote {path}" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
