"""Reading a cache: samples by number, straight from the shards; nothing keeps a dataset in memory."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from training.backbones.base import Context
from training.errors import UserError
from training.latents import header
from training.latents.build import EMPTY


@dataclass(frozen=True)
class Place:
    """Where a sample lies: shard, row in it, where its tokens begin and how many they are, by name; its size and length, its id,
    the family of its body, and the hash of the file that it was cut from; empty where that is not known."""

    shard: Path
    row: int
    tokens: dict[str, tuple[int, int]]
    bucket: str
    id: str
    body: str
    source: str


class Cache:
    """One split of a cache.

    Attributes:
        name: What errors call it. metadata: Of the header, the same in all shards. places: Of all samples, in order. empty: Context
        of an empty prompt, with `empty_metadata`; both are empty where there is none.

    Raises:
        UserError: a file is broken, no shard, or of another cache, or shards are missing.
    """

    def __init__(self, folder: Path, split: str) -> None:
        paths = sorted((folder / split).glob("*.safetensors"))
        self.folder, self.name, self.places, self.metadata = folder, str(folder), [], {}
        wholes = []
        for path in paths:
            found = header.read_metadata(path)
            about = {key: value for key, value in found.items() if key.startswith("cache.")}
            if not about:
                raise UserError(f"{path} is no shard of a cache, expected one made by `python -m training cache`")
            if self.metadata and about != self.metadata:
                raise UserError(f"{path} is of another cache than {paths[0].name}; delete {folder} and make it again")
            self.metadata = about
            ids, bodies, lengths = (json.loads(found[name]) for name in ("ids", "bodies", "lengths"))
            # a shard of before they were told has none
            self._add(path, ids, bodies, lengths, json.loads(found.get("sources", "[]")) or [""] * len(ids))
            wholes.append(found)
        # a split of which nothing is there yet is told of by the shards of the other
        for other in sorted(folder.glob("*/*.safetensors"))[:1] if not paths else ():
            wholes.append(header.read_metadata(other))
        for found in wholes:
            header.check_whole(found, split, len(paths), len(self.places), folder)
        version = self.metadata.get("cache.version", header.VERSION)
        if version != header.VERSION:
            raise UserError(f"{folder} is a cache of version {version}, expected {header.VERSION}; make it again")
        there = (folder / EMPTY).is_file()
        self.empty_metadata = header.read_metadata(folder / EMPTY) if there else {}
        self.empty: Context = load_file(folder / EMPTY) if there else {}

    def _add(self, path: Path, ids: list[str], bodies: list[str], lengths: dict[str, list[int]], sources: list[str]) -> None:
        starts = dict.fromkeys(lengths, 0)
        for row, sample in enumerate(ids):
            tokens = {name: (starts[name], lengths[name][row]) for name in lengths}
            starts = {name: start + lengths[name][row] for name, start in starts.items()}
            self.places.append(Place(path, row, tokens, path.stem.rpartition("_")[0], sample, bodies[row], sources[row]))

    def only(self, ids: Collection[str]) -> Cache:
        """The same with these samples alone."""
        part = copy.copy(self)
        part.places = [place for place in self.places if place.id in ids]
        return part

    def __len__(self) -> int:
        return len(self.places)

    def header(self, key: str) -> str:
        """A field of the header."""
        if key in header.OPTIONAL:
            return self.metadata.get(f"cache.{key}", "")
        return self.metadata[f"cache.{key}"]

    def buckets(self) -> dict[str, list[int]]:
        """Numbers of the samples of each size and length."""
        found: dict[str, list[int]] = {}
        for number, place in enumerate(self.places):
            found.setdefault(place.bucket, []).append(number)
        return found

    def tensors(self, number: int, names: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
        """Tensors of a sample as they are kept: `target`, and `condition` and `motion` (variants, ...), or
        `reference` and `joints`."""
        place = self.places[number]
        with safe_open(place.shard, "pt") as file:
            wanted = [name for name in file.keys() if not name.startswith("context.")]  # noqa: SIM118 - not a dict
            return {name: file.get_slice(name)[place.row] for name in wanted if names is None or name in names}

    def context(self, number: int, drop_text: bool = False) -> Context:
        """Context of a sample, or that of an empty prompt with the sample's image."""
        place = self.places[number]
        with safe_open(place.shard, "pt") as file:
            found = {name: file.get_slice(f"context.{name}")[start : start + n] for name, (start, n) in place.tokens.items()}
        return found | self.empty if drop_text else found

    def fingerprint(self) -> str:
        """What the data is: of the header and the ids."""
        return header.digest([self.metadata, [place.id for place in self.places]])
