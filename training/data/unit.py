"""What a source is made of: units, each a file or a line or a few drawings, that are made into samples independently."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from dreamactor_core.extract.weights import sha256_of
from dreamactor_core.text.prompts import load_prompts
from training.config import Config
from training.data.dropping import Dropped
from training.data.poses import weight_files
from training.manifest import Sample

VERSION = 1
"""Changes whenever the same source and settings give other clips."""
_PLACES = {"source", "folder", "manifest", "pose_weights", "world", "workers", "base_url"}
"""Settings of `data` that say where things are, not what becomes of them."""


@dataclass(frozen=True)
class Job:
    """What is to be made of every unit, and where: `folder` is that of the clips."""

    config: Config
    folder: Path

    def digest(self) -> str:
        """Hex digest of all that decides what becomes of a source: what was finished with another one is made anew."""
        data = self.config.data
        settings = data.model_dump(mode="json", exclude=_PLACES)
        clip = self.config.clip.model_dump(mode="json")
        weights = [sha256_of(path) for path in weight_files(data).values()] if data.poses == "extract" else []
        prompts = load_prompts("en").version if data.captions == "service" else ""
        stated = json.dumps([VERSION, settings, clip, weights, prompts], sort_keys=True)
        return hashlib.sha256(stated.encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: samples with paths as they can be opened, what was dropped, and what people should know.

    Attributes:
        sha256: Of the unit's files, in their order.
        unsure: It may come out otherwise another time: it is not noted as finished.
    """

    samples: list[Sample] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    unsure: bool = False


class Unit(ABC):
    """One thing that samples are made of, small and independent of others; it is sent to another process.

    Attributes:
        name: Unique in its source; stands in the list of what was dropped.
    """

    name: str

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it is made of: a unit whose files have changed is made anew."""
        return ()

    @property
    def identity(self) -> str:
        """What it is, its files left out: one that is stated otherwise is made anew."""
        return repr(self)

    @abstractmethod
    def make(self, job: Job) -> Outcome:
        """Make its samples. Files of samples are written whole or not at all, named by the sample's id.

        Raises:
            UserError: nothing else can be made either, for instance because the disk is full.
        """


@dataclass(frozen=True)
class Source:
    """What is to be made: units in the order of the manifest, and what was no use from the start."""

    units: list[Unit]
    dropped: list[Dropped] = field(default_factory=list)
