"""Workers on Ray that take the next package when they are done with one: the slow take fewer, what dies is made up for."""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from training.errors import UserError, of_device
from training.synthesize.plan import Package
from training.synthesize.worker import Outcome

ROOT = Path(__file__).resolve().parents[2]
TRIES = 3
"""Times that a package is begun, and a worker's networks are loaded, before it is given up."""

_PATIENCE = 10.0  # seconds that whoever listens at an address has to take a connection
_STORE = 128 * 2**20  # bytes of Ray's object store: what is sent are plans and names, pictures go to files


def _called(address: str) -> None:
    """Raises OSError when nobody listens at HOST:PORT, with ray:// before it or not: Ray would look for minutes, and then end this
    process without a word. Any other address, such as `auto`, is Ray's own to find."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.scheme in ("", "ray") and parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), _PATIENCE).close()


@contextmanager
def cluster(address: str | None, cpus: int, gpus: int) -> Iterator[None]:
    """Ray, here or at `address`, until the block ends. Raises UserError when nothing answers there."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports to its makers otherwise
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would have workers stand back for everything else on the machine
    if address is None:
        # Ray's own name for it; what it does on every system is to keep to this machine's loopback
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # one for this run, in place of a file in the user's home
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        if address is not None:
            _called(address)
    except (OSError, ValueError) as error:
        raise _unanswered(address, error) from error
    import ray

    options: dict[str, Any] = {"address": "local" if address is None else address, "log_to_driver": False, "logging_level": "error"}
    if address is None:
        options |= {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False, "object_store_memory": _STORE}
    # workers import this project from where it lies; on a cluster that is one place for all
    variables = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    variables |= {name: os.environ[name] for name in ("ACCELERATE_USE_CPU",) if name in os.environ}  # on a cluster's machines too
    try:
        ray.init(runtime_env={"env_vars": variables}, **options)
    except ConnectionError as error:
        raise _unanswered(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _unanswered(address: str | None, error: Exception) -> UserError:
    return UserError(f"no Ray answers at synthesize.address, {address} ({error}); start it, or leave the address out")


def _reason(error: BaseException) -> str:
    """The last line of what Ray says, which is what was raised."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [""]
    return f"{type(cause).__name__}: {lines[0] if cause is not error else lines[-1]}"


class Pool:
    """A queue of packages and those who work on it.

    Args:
        spawn: Makes the actor of a slot, anew each time.
        slots: How many.
        report: Told of each outcome, once for every package that has ended.
    """

    def __init__(self, spawn: Callable[[int], Any], slots: int, report: Callable[[Package, Outcome], None]) -> None:
        self.spawn, self.report = spawn, report
        self.actors: dict[int, Any] = {}
        self.idle: list[int] = []
        self.running: dict[Any, tuple[int, Package | None]] = {}  # None: it loads
        self.loads: Counter[int] = Counter()
        self.tries: Counter[str] = Counter()  # by the first unit of a package
        self.failing: defaultdict[int, set[str]] = defaultdict(set)  # of a slot: packages in a row on which its GPU failed
        self.lost: list[str] = []
        self.slots = slots

    def work(self, packages: Sequence[Package]) -> None:
        """Until every package is done or given up.

        Raises:
            UserError: nobody can go on: the disk is full, a network cannot be loaded, every worker is lost.
        """
        import ray

        self.queue = deque(packages)
        for slot in range(min(self.slots, len(packages))):
            self._start(slot)
        # loads are not waited for: on a cluster one can wait for a GPU that never comes free
        while self.queue or any(package for _, package in self.running.values()):
            while self.queue and self.idle:
                slot, package = self.idle.pop(), self.queue.popleft()
                self.tries[package.units[0].id] += 1
                self.running[self.actors[slot].run.remote(package)] = (slot, package)
            if not self.running:
                raise UserError(f"no worker is left: {'; '.join(self.lost)}. What is finished is kept: run the same command again")
            for ready in ray.wait(list(self.running), num_returns=1, timeout=1.0)[0]:
                self._end(ready, *self.running.pop(ready))

    def _start(self, slot: int) -> None:
        self.loads[slot] += 1
        self.actors[slot] = self.spawn(slot)
        self.running[self.actors[slot].load.remote()] = (slot, None)

    def _end(self, ready: Any, slot: int, package: Package | None) -> None:
        import ray
        from ray.exceptions import RayActorError, RayError

        try:
            outcome = ray.get(ready)
        except RayActorError as error:  # ended from outside, or by itself for lack of memory
            ray.kill(self.actors[slot])
            if package is None and self.loads[slot] >= TRIES:
                self.lost.append(f"worker {slot} ended {TRIES} times while it loaded its networks ({_reason(error)})")
            else:
                self._start(slot)
            self._again(package, f"its worker ended ({_reason(error)})")
            return
        except RayError as error:
            reason = _reason(error)
            if package is None and self.loads[slot] == 1:
                raise UserError(f"a worker can't load its networks: {reason}") from error
            self._again(package, reason)
            if package is not None and not of_device(reason):
                self.idle.append(slot)
                return
            # after such an error all else fails in that process, at once: it would go through the whole queue
            if package is not None:
                self.failing[slot].add(package.units[0].id)
            if package is None or len(self.failing[slot]) >= TRIES:
                # it is not ended: it holds its GPU, which the next worker that is started would be given else
                self.lost.append(f"worker {slot}, started {self.loads[slot]} times, can't go on ({reason})")
            else:
                ray.kill(self.actors[slot])
                self._start(slot)
            return
        if package is None:
            self.idle.append(slot)
            return
        if outcome.stop:
            raise UserError(outcome.stop)
        if outcome.lost:
            self.lost.append(outcome.lost)
            done = frozenset([*outcome.done, *outcome.failed])
            self.report(package, outcome)
            if left := package.wanted - done:
                self._again(Package(package.units, left), outcome.lost)
            return
        self.idle.append(slot)
        self.failing[slot].clear()
        self.report(package, outcome)

    def _again(self, package: Package | None, reason: str) -> None:
        if package is None:
            return
        if self.tries[package.units[0].id] < TRIES:
            self.queue.append(package)  # last: what kills workers must not hold up the rest
        else:
            self.report(package, Outcome(failed={unit: f"{reason}, {TRIES} times" for unit in package.wanted}))
