"""Several caches as one: clips that came later, or another batch of pairs, need no new cache of all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from training.errors import UserError
from training.latents import header
from training.latents.read import Cache

_OWN = ("cache.manifest_sha256", "cache.pairs")
"""What two caches of one way to encode may differ in."""


def opened(folders: Path | Sequence[Path]) -> tuple[Cache, Cache]:
    """What is to be trained on, and what is held out, of a cache or of several.

    Where one of several has nothing to train on the first that is so is returned as it is, which is told of with any other.

    Raises:
        UserError: as `Cache`; two were made in different ways, or hold the same sample.
    """
    named = [folders] if isinstance(folders, Path) else list(folders)
    train, held_out = ([Cache(folder, split) for folder in named] for split in ("train", "validation"))
    if nothing := [cache for cache in train if not len(cache)]:
        return nothing[0], _joined(held_out)
    found: dict[str, Path] = {}
    for cache in (*train, *held_out):
        for place in cache.places:
            if found.get(place.id, cache.folder) != cache.folder:
                raise UserError(
                    f"train.cache: {found[place.id]} and {cache.folder} both hold {place.id}, expected caches of different "
                    f"samples; leave one out, or cache a manifest without what the other has"
                )
        found |= {place.id: cache.folder for place in cache.places}
    return _joined(train), _joined(held_out)


def _joined(caches: Sequence[Cache]) -> Cache:
    """Raises UserError unless they were made alike."""
    some = [cache for cache in caches if len(cache)] or caches[:1]
    if len(some) == 1:
        return some[0]
    first, whole = some[0], copy.copy(some[0])
    for other in some[1:]:
        for key in sorted(first.metadata.keys() | other.metadata.keys()):
            got, wanted = other.metadata.get(key), first.metadata.get(key)
            if got != wanted and key not in _OWN:
                raise UserError(
                    f"train.cache: {other.folder} has {key.removeprefix('cache.')} {got or 'not set'}, expected "
                    f"{wanted or 'not set'} as {first.folder} has; make them with the same settings and weights"
                )
    whole.name = " and ".join(cache.name for cache in some)
    whole.places = [place for cache in some for place in cache.places]
    kinds = {kind for cache in some for kind in cache.header("pairs").split(",")}
    sources = header.digest([cache.header("manifest_sha256") for cache in some])
    whole.metadata = first.metadata | {"cache.pairs": ",".join(sorted(kinds)), "cache.manifest_sha256": sources}
    return whole
