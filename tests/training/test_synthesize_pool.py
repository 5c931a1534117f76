"""The queue on real Ray, with workers that need no network: who takes what, who dies, and when to stop."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthesis import ROOT, config, sample

from training.errors import UserError
from training.synthesize import pool
from training.synthesize.plan import Package, Unit
from training.synthesize.pool import TRIES, Pool, cluster
from training.synthesize.records import Folder
from training.synthesize.run import _make
from training.synthesize.worker import Outcome


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with cluster(None, 2, 0):
        yield


def package(*names: str) -> Package:
    one = sample(Path("x"), "a")
    return Package(tuple(Unit(name, one, one, "", 0) for name in names), frozenset(names))


def spawner(folder: Path, cpus: int) -> Callable[[int], Any]:
    """Actors that do what the name of a package's first unit says, and note who did it. `cpus`: what each of them asks for."""
    import ray

    class Toy:  # in here, so that Ray sends it by value: workers cannot import this file
        def __init__(self, slot: int) -> None:
            self.slot, self.patience, self.broken = slot, 60.0, False

        def load(self) -> None:
            if (folder / "no network").exists():
                raise UserError("there is no network")
            with (folder / "loads").open("a") as loads:
                loads.write(f"{self.slot}")
            if self.slot == 0 and list(folder.glob("breaks-for-good*")):
                raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

        def run(self, package: Package) -> Outcome:
            name = package.units[0].id
            with (folder / "log").open("a") as log:
                log.write(f"{self.slot} {name} {os.getpid()}\n")

            def others() -> int:
                return sum(not line.startswith("0 ") for line in (folder / "log").read_text().splitlines())

            if name.startswith("kills-always") or (name.startswith("kills") and not (folder / name).exists()):
                (folder / name).touch()
                os._exit(1)
            again = name.startswith("breaks-always") or not (folder / name).exists()
            if self.slot == 0 and name.startswith("breaks") and again:
                (folder / name).touch()
                self.broken = True
            if self.broken:  # as all of CUDA is in a process where it failed
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            if name.startswith("raises"):
                raise RuntimeError("out of memory")
            if name.startswith("stop"):
                return Outcome(stop="the disk is full")
            if name.startswith("loses-all") or (self.slot == 0 and name.startswith("lost")):
                return Outcome(lost=f"server {self.slot} is gone")
            while name.startswith("breaks") and self.slot and self.patience > 0 and not list(folder.glob("breaks*")):
                time.sleep(0.05)  # until the other's has failed
                self.patience -= 0.05
            while name.startswith("slow") and self.slot == 0 and self.patience > 0 and others() < 11:
                time.sleep(0.05)
                self.patience -= 0.05
            time.sleep(0.1)
            return Outcome(done=sorted(package.wanted))

    made = ray.remote(Toy).options(num_cpus=cpus)
    return lambda slot: made.remote(slot)


Worked = tuple[list[str], dict[str, str], list[list[str]]]


def worked(folder: Path, packages: list[Package], slots: int = 2, cpus: int = 1) -> Worked:
    """Units done, in order; units failed; lines of the log."""
    done: list[str] = []
    failed: dict[str, str] = {}

    def report(package: Package, outcome: Outcome) -> None:
        done.extend(outcome.done)
        failed.update(outcome.failed)

    Pool(spawner(folder, cpus), slots, report).work(packages)
    return done, failed, [line.split() for line in (folder / "log").read_text().splitlines()]


def test_the_slow_take_fewer(tmp_path: Path) -> None:
    """One is at its first package until the other has begun all others, whichever of the two was loaded first."""
    done, failed, log = worked(tmp_path, [package(f"slow{k}") for k in range(12)])
    assert sorted(done) == sorted(f"slow{k}" for k in range(12)) and not failed
    slow, quick = (sum(line[0] == slot for line in log) for slot in "01")
    assert slow + quick == 12 and slow <= 1


def test_a_worker_that_dies_is_replaced_and_its_package_is_made(tmp_path: Path) -> None:
    done, failed, log = worked(tmp_path, [package("kills-once", "with-it"), package("u1"), package("u2")])
    assert sorted(done) == ["kills-once", "u1", "u2", "with-it"] and not failed
    pids = [line[2] for line in log if line[1] == "kills-once"]
    assert len(pids) == 2 and pids[0] != pids[1]


def test_what_kills_or_raises_again_and_again_is_given_up(tmp_path: Path) -> None:
    done, failed, log = worked(tmp_path, [package("kills-always", "with-it"), package("raises"), package("u1")])
    assert done == ["u1"] and sorted(failed) == ["kills-always", "raises", "with-it"]
    assert "its worker ended" in failed["with-it"] and "out of memory" in failed["raises"]
    assert [sum(line[1] == name for line in log) for name in ("kills-always", "raises")] == [TRIES, TRIES]


def test_a_worker_whose_gpu_fails_is_started_anew(tmp_path: Path) -> None:
    """In that process all else would fail too, quicker than others can work: it would go through the queue."""
    wanted = [f"u{k}" for k in range(8)]
    done, failed, log = worked(tmp_path, [package("breaks"), *map(package, wanted)], slots=1)
    assert sorted(done) == sorted(["breaks", *wanted]) and not failed
    assert len(log) == len(wanted) + 2, "one package was begun twice"
    assert (tmp_path / "loads").read_text() == "00"


@pytest.mark.parametrize(("name", "loads"), [("breaks-always", TRIES), ("breaks-for-good", 2)])
def test_a_gpu_that_fails_again_and_again_is_left_alone(tmp_path: Path, name: str, loads: int) -> None:
    """With one package after the other, or when its networks are loaded anew."""
    with pytest.raises(UserError, match=r"no worker is left: worker 0, started \d times, can't go on \(.*CUDA error"):
        worked(tmp_path, [package(f"{name}{k}") for k in range(5)], slots=1)
    assert (tmp_path / "loads").read_text() == "0" * loads


def test_others_make_what_a_broken_gpu_leaves(tmp_path: Path) -> None:
    wanted = [f"breaks-for-good{k}" for k in range(6)]
    done, failed, log = worked(tmp_path, list(map(package, wanted)))
    assert sorted(done) == wanted and not failed
    assert [line[0] for line in log].count("0") == 1


def test_packages_on_which_every_gpu_fails_are_given_up_and_not_the_worker(tmp_path: Path) -> None:
    done, failed, log = worked(tmp_path, [*(package(f"breaks-always{k}") for k in range(2)), package("u0"), package("u1")], slots=1)
    assert sorted(done) == ["u0", "u1"] and sorted(failed) == ["breaks-always0", "breaks-always1"]
    assert "illegal memory access" in failed["breaks-always0"]
    assert [sum(line[1] == f"breaks-always{k}" for line in log) for k in range(2)] == [TRIES, TRIES]


def test_a_lost_server_is_left_to_the_others_until_there_is_none(tmp_path: Path) -> None:
    done, failed, _ = worked(tmp_path, [package(f"lost{k}") for k in range(4)])
    assert sorted(done) == [f"lost{k}" for k in range(4)] and not failed
    with pytest.raises(UserError, match=r"no worker is left: server 0 is gone.*the same command"):
        worked(tmp_path, [package("lost1")], slots=1)


def test_a_package_that_ends_its_server_is_given_up_before_all_are_gone(tmp_path: Path) -> None:
    wanted = [f"u{k}" for k in range(6)]
    done, failed, log = worked(tmp_path, [package("loses-all", "with-it"), *map(package, wanted)], slots=TRIES + 1, cpus=0)
    assert sorted(done) == wanted and sorted(failed) == ["loses-all", "with-it"]
    assert "is gone" in failed["with-it"]
    assert sum(line[1] == "loses-all" for line in log) == TRIES
    assert log[1][1] != "loses-all", "what ends servers comes last"


def test_a_worker_that_no_place_is_left_for_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Three on two processors: the third never loads."""
    found: list[list[str]] = []
    run = threading.Thread(target=lambda: found.append(worked(tmp_path, [package(f"u{k}") for k in range(3)], 3)[0]), daemon=True)
    run.start()
    run.join(120)
    assert [sorted(done) for done in found] == [["u0", "u1", "u2"]]


@pytest.mark.parametrize(("workers", "expected"), [(0, 3), (2, 2)])
def test_on_a_cluster_it_is_the_clusters_gpus_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, expected: int
) -> None:
    import ray

    made: list[int] = []
    monkeypatch.setattr(pool, "cluster", lambda address, cpus, gpus: contextlib.nullcontext())
    monkeypatch.setattr(pool, "Pool", lambda spawn, slots, report: SimpleNamespace(work=lambda left: made.append(slots)))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 3.0})
    one = sample(tmp_path, "a")
    units = [Unit("a", one, one, "", 0)]
    _make(config(tmp_path, address="ray://elsewhere", workers=workers), Folder(tmp_path), units)
    assert made == [expected]
    with pytest.raises(UserError, match=r"synthesize\.workers is 4, but there are 3 GPUs"):
        _make(config(tmp_path, address="ray://elsewhere", workers=4), Folder(tmp_path), units)


def test_by_its_address_a_cluster_is_joined() -> None:
    """By another process: that of this one is there already."""
    import ray

    code = (
        "import ray, sys; from training.synthesize.pool import cluster\n"
        "with cluster(sys.argv[1], 1, 0): print(ray.get_runtime_context().gcs_address)"
    )
    address = ray.get_runtime_context().gcs_address
    result = subprocess.run([sys.executable, "-c", code, address], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and result.stdout.split() == [address], result.stdout + result.stderr
    assert ray.cluster_resources()["CPU"] == 2, "who leaves it does not end it"


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "127.0.0.1:99999"])
def test_an_address_where_nobody_listens_is_told_at_once(address: str) -> None:
    """Ray itself looks for a minute or three, and then ends the process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening: nobody else gets the port meanwhile
        address, started = address.format(taken.getsockname()[1]), time.monotonic()
        said = re.escape(f"no Ray answers at synthesize.address, {address} (")
        with pytest.raises(UserError, match=said + r".+\); start it, or leave the address out"), cluster(address, 1, 0):
            pass
        assert time.monotonic() - started < 30


def test_a_full_disk_and_a_missing_network_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the disk is full"):
        worked(tmp_path, [package("stop"), *(package(f"u{k}") for k in range(50))])
    (tmp_path / "no network").touch()
    with pytest.raises(UserError, match="can't load its networks: UserError: there is no network"):
        worked(tmp_path, [package("u1")])
