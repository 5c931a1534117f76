"""What is measured while a graph runs: when nodes and steps are done, and how much memory is in use."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from headless.client import Client, Progress, Prompt, id_by_title

SAMPLER = "Sampler"
_LOOKS = 0.05  # seconds between two looks at the memory


class Clock:
    """Follows a run of a graph, as `Client.run` tells of it.

    Attributes:
        begun: Title of each node, and when it began.
        steps: Steps of the sampler that were done, and when.
        ended: When the run did.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.begun: list[tuple[str, float]] = []
        self.steps: list[tuple[int, float]] = []
        self.ended = float("nan")

    def __call__(self, progress: Progress) -> None:
        if not self.begun or self.begun[-1][0] != progress.title:
            self.begun.append((progress.title, self.now()))
        if progress.title == SAMPLER and progress.value:
            self.steps.append((progress.value, self.now()))

    def step(self) -> float:
        """Seconds of a step: the mean over all but the first, which loads the model and has the driver's own pass of a cached
        context. The host leaves messages out when they come fast, but never the first and the last."""
        (first, began), (last, ended) = self.steps[0], self.steps[-1]
        return (ended - began) / (last - first)

    def before_first(self) -> float:
        """Seconds from the sampler's begin to its first step's end."""
        return self.steps[0][1] - dict(self.begun)[SAMPLER]

    def nodes(self) -> dict[str, float]:
        """Seconds of each node that was run; those whose results were kept are not among them."""
        ends = [start for _, start in self.begun[1:]] + [self.ended]
        found: dict[str, float] = {}
        for (title, start), end in zip(self.begun, ends, strict=True):
            found[title] = found.get(title, 0.0) + end - start
        return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def timed(client: Client, graph: Prompt) -> Clock:
    """Run a graph, and follow it."""
    id_by_title(graph, SAMPLER)  # the clock goes by titles
    clock = Clock()
    client.run(graph, clock)
    clock.ended = clock.now()
    return clock


def has_gpu_bytes(client: Client) -> bool:
    """Whether the server computes on an NVIDIA or AMD GPU. Of others the host does not say as much, and a process's RAM says
    little of what one run took."""
    return client.system_stats()["devices"][0]["type"] == "cuda"


def gpu_bytes(client: Client) -> float:
    """What is in use of the server's GPU, other programs' included, without what torch keeps for later: what the host says is free
    has that in it."""
    device = client.system_stats()["devices"][0]
    return device["vram_total"] - device["vram_free"]


class Memory:
    """Within it, `used` is asked again and again, from another thread: `most` is the most that it said."""

    def __init__(self, used: Callable[[], float]) -> None:
        self._used, self.most = used, 0.0
        self._ended, self._failed = threading.Event(), None

    def _watch(self) -> None:
        try:
            while not self._ended.wait(_LOOKS):
                self.most = max(self.most, self._used())
        except Exception as failed:  # for the thread that waits: what was seen so far is not the most
            self._failed = failed

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self._failed and error is None:
            raise self._failed
