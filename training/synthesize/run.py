"""The verb `synthesize`: pseudo pairs V_o = M_pose(P_src, I_o) (Eq. 3), and their triplets with the sources (Eq. 4)."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.config import Config, load, save
from training.errors import UserError
from training.processes import alone
from training.synthesize.plan import Package, Teaching, Unit, manifests, missing, packages, plan_units
from training.synthesize.records import Folder
from training.synthesize.worker import Outcome

_HOPELESS = 12  # failures without a single success after which a run is stopped
_SHOWN = 20  # failures printed; all are in the file


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="YAML of the run")


def main(options: argparse.Namespace) -> int:
    """Returns 0 when every unit is made, 1 when some failed. Raises UserError, KeyboardInterrupt; both leave what is finished."""
    config = load(options.config)
    print(f"synthesize: on {_device(config)}", flush=True)
    teaching = _check(config)
    units = plan_units(config, *manifests(config), teaching)
    folder = Folder(config.out / "synthetic")
    with alone(folder.path, "synthesize"):
        folder.remove_partials()
        save(config, folder.path)
        failed = _make(config, folder, units)
        records = {unit.id: record for unit in units if (record := folder.finished(unit.id))}
        failed = {unit: reason for unit, reason in failed.items() if unit not in records}
        folder.write_failures(units, failed)
        specs = {frames: config.clip.spec(frames) for frames in {unit.source.frames for unit in units}}
        # whoever reads the reference's poses, we or the workflow, retargets to them
        folder.write_manifest(units, records, specs, teaching.needs.reference_poses)
    print(f"{len(records)} of {len(units)} pairs are in {folder.manifest}")
    if failed:
        print(f"{len(failed)} failed, and are tried again by the same command; all of them are in {folder.failures}")
        for unit in [unit for unit in units if unit.id in failed][:_SHOWN]:
            print(f"  {unit.id} ({unit.source.id} on {unit.reference.id}): {failed[unit.id]}")
    return 1 if failed else 0


def _check(config: Config) -> Teaching:
    if config.synthesize.teacher == "comfyui":
        from training.synthesize import comfyui

        return comfyui.check(config)
    from training.synthesize import direct

    return direct.check(config)


def _device(config: Config) -> str:
    """What the teacher is computed on, in words. Raises UserError for a large network on a CPU that nobody asked for."""
    settings = config.synthesize
    if settings.teacher == "comfyui":
        if settings.servers:
            return f"ComfyUI at {', '.join(settings.servers)}"
        from headless.device import describe

        return f"ComfyUI, {describe()[0]}"
    if settings.address is not None:
        return f"the Ray cluster at {settings.address}"  # its workers look for themselves
    from training import backbones, devices

    here = devices.found()
    devices.check(backbones.get(config.backbone), here[0])
    return devices.in_words(*here)


def _absolute(config: Config) -> dict[str, Any]:
    """Plain values of the config with paths that hold in every process's folder."""
    values = config.model_dump(mode="json")
    values["out"] = str(config.out.absolute())
    for section, name in (("backbone", "path"), ("synthesize", "lora"), ("synthesize", "workflow")):
        if values[section][name] is not None:
            values[section][name] = str(Path(values[section][name]).absolute())
    return values


class _Count:
    """Outcomes as they come: the bar, the failures, and the end of a run that leads nowhere."""

    def __init__(self, total: int, finished: int) -> None:
        self.any_done, self.failed, self.made = finished > 0, {}, 0
        self.bar = tqdm(total=total, initial=finished, unit="pair", smoothing=0.1)

    def __call__(self, package: Package, outcome: Outcome) -> None:
        self.failed |= outcome.failed
        self.made += len(outcome.done)
        self.any_done = self.any_done or bool(outcome.done)
        self.bar.update(len(outcome.done))
        self.bar.set_postfix(failed=len(self.failed))
        if not self.any_done and len(self.failed) >= _HOPELESS:
            reasons = "\n  ".join(dict.fromkeys(self.failed.values()))
            raise UserError(f"the first {len(self.failed)} pairs all failed, so the run is stopped:\n  {reasons}")


def _make(config: Config, folder: Folder, units: Sequence[Unit]) -> dict[str, str]:
    """Make what is missing. Returns unit to reason for those that failed."""
    finished = {unit.id for unit in units if folder.finished(unit.id)}
    comfy = config.synthesize.teacher == "comfyui"
    left = missing(packages(units, 1 if comfy else config.synthesize.batch), finished)
    print(f"{len(units)} pairs, {len(finished)} of them finished, in {folder.path}", flush=True)
    if not left:
        return {}
    from training.devices import cpu_is_asked_for
    from training.synthesize.pool import Pool, cluster

    count, started = _Count(len(units), len(finished)), time.monotonic()
    with _servers(config) as servers, count.bar:
        address, gpus = config.synthesize.address, 0 if servers else _gpus_here()
        with cluster(address, _slots(config, len(servers), 0 if address else gpus), gpus):
            if address and not servers and not cpu_is_asked_for():  # it is the cluster's that count
                import ray

                gpus = int(ray.cluster_resources().get("GPU", 0))
            slots = _slots(config, len(servers), gpus)
            Pool(_spawner(config, slots, gpus, servers), slots, count).work(left)
    seconds = time.monotonic() - started
    print(f"made {count.made} pairs in {seconds:.1f} s, {count.made / seconds:.3f} a second, with {slots} workers")
    return count.failed


def _gpus_here() -> int:
    from training import devices

    return sum(device != "cpu" for device in devices.found())


def _slots(config: Config, servers: int, gpus: int) -> int:
    """How many workers. `gpus`: those that Ray shares out among them. Raises UserError for more workers than GPUs: those without
    one would wait for it as long as the run lasts."""
    workers = config.synthesize.workers
    if servers:
        return servers
    if gpus and workers > gpus:
        raise UserError(f"synthesize.workers is {workers}, but there are {gpus} GPUs, one for each worker; 0 takes all of them")
    return workers or max(1, gpus)


@contextmanager
def _servers(config: Config) -> Iterator[list[tuple[str, str | None]]]:
    """Address and results' folder of each ComfyUI server: those that are named, or as many as workers, started here."""
    settings = config.synthesize
    if settings.teacher != "comfyui":
        yield []
    elif settings.servers:
        yield [(address, None) for address in settings.servers]
    else:
        from training.devices import gpus as gpus_here
        from training.synthesize.servers import started

        gpus = gpus_here()  # ComfyUI knows nothing of the wish for a CPU
        with started(settings.workers or max(1, gpus), gpus) as servers:
            yield servers


def _spawner(config: Config, slots: int, gpus: int, servers: Sequence[tuple[str, str | None]]) -> Callable[[int], Any]:
    """Makes the actor of a slot. `gpus`: as in `_slots`; where there are any, each worker has one."""
    import ray

    from training.synthesize.worker import Worker

    threads = max(1, (os.cpu_count() or 1) // slots)
    values = _absolute(config)
    # no restarts of Ray's own: what a worker was at must go back to the queue first
    actor = ray.remote(Worker).options(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0, max_task_retries=0)
    return lambda slot: actor.remote(values, servers[slot] if servers else None, threads)
