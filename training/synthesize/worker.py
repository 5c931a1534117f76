"""What runs in each process of Ray's: a teacher, and the writing of what it makes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.config import validated
from training.errors import FULL
from training.synthesize.plan import Package, Unit
from training.synthesize.records import Folder


class Lost(RuntimeError):
    """What this worker works with is gone for good; others may go on."""


class Teacher(Protocol):
    """Something that animates a character by the motion of a clip."""

    def make(self, package: Package) -> Iterator[tuple[Unit, np.ndarray | str]]:
        """uint8 frames (N, H, W, 3) of each wanted unit, or why there are none. Raises Lost."""


@dataclass
class Outcome:
    """What came of a package. `failed`: unit to reason. `stop`: why nobody can go on. `lost`: why this worker can't."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stop: str = ""
    lost: str = ""


class Worker:
    """An actor. It is made at once; `load` takes as long as the networks do.

    Args:
        config: Of the run, as plain values with paths that hold in every folder.
        server: Address of its ComfyUI server, and the folder of that server's results where it is ours to empty.
        threads: Of torch on the CPU. The bits of a result depend on it.
    """

    def __init__(self, config: dict[str, Any], server: tuple[str, str | None] | None, threads: int) -> None:
        self.config, self.server, self.threads = validated(config, "the run's config"), server, threads
        self.folder = Folder(self.config.out / "synthetic")
        self.teacher: Teacher | None = None

    def load(self) -> int:
        """Make the teacher ready. Returns the process id; raises UserError."""
        if self.config.synthesize.teacher == "comfyui":
            from training.synthesize.comfyui import ComfyTeacher

            if self.server is None:
                raise ValueError("the comfyui teacher needs a server")
            address, results = self.server
            self.teacher = ComfyTeacher(self.config, address, Path(results) if results else None)
        else:
            import torch

            from training import backbones, devices
            from training.synthesize.direct import DirectTeacher

            torch.set_num_threads(self.threads)
            device = devices.found()[0]
            devices.check(backbones.get(self.config.backbone), device)  # of a cluster's machines whoever starts the run knows none
            self.teacher = DirectTeacher(self.config, torch.device(device))
        return os.getpid()

    def run(self, package: Package) -> Outcome:
        """Make what is wanted of a package and write it."""
        if self.teacher is None:
            raise RuntimeError("load comes first")
        outcome = Outcome()
        try:
            for unit, made in self.teacher.make(package):
                if isinstance(made, str):
                    outcome.failed[unit.id] = made
                else:
                    self.folder.store(unit, made)
                    outcome.done.append(unit.id)
        except Lost as error:
            outcome.lost = str(error)
        except OSError as error:
            if error.errno not in (*FULL, errno.EROFS):  # with these nobody can go on
                raise
            outcome.stop = (
                f"{self.folder.path} can't be written to ({error.strerror}); what is finished is kept: make room, or see that it "
                f"may be written to, and run the same command again"
            )
        return outcome
