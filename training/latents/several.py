"""Several caches as one: clips that came later, or another batch of pairs, need no new cache of all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from training.errors import UserError
from training.latents import header
from training.latents.read import Cache

_OWN = ("cache.manifest_sha256", "cache.pairs", "cache.skeleton")
"""What two caches of one way to encode may differ in: it is from their samples."""


def opened(folders: Sequence[Path]) -> tuple[Cache, Cache]:
    """What is to be trained on, and what is held out, of a cache or of several.

    Where one of several has nothing to train on the first that is so is returned as it is, which is told of with any other.

    Raises:
        UserError: as `Cache`; two are the same, were made in different ways, or hold the same sample; what one trains on is from
            a file of which another holds out a part.
    """
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise UserError(f"train.cache lists {folder} twice, expected each cache once; leave one out")
    train, held_out = ([Cache(folder, split) for folder in folders] for split in ("train", "validation"))
    if nothing := [number for number, cache in enumerate(train) if not len(cache)]:
        return train[nothing[0]], held_out[nothing[0]]
    _check_ids(train, held_out)
    _check_sources(train, held_out)
    return _joined(train), _joined(held_out)


def _check_ids(train: Sequence[Cache], held_out: Sequence[Cache]) -> None:
    """Raises UserError when two caches hold the same sample."""
    found: dict[str, tuple[Path, str]] = {}
    for side, caches in (("to train on", train), ("held out", held_out)):
        for cache in caches:
            for place in cache.places:
                where, other = found.get(place.id, (cache.folder, side))
                if where != cache.folder:
                    raise UserError(
                        f"train.cache: {where} has {place.id} {other}, and {cache.folder} has it {side}, expected caches of "
                        f"different samples; make one again of a manifest without what the other has, with other ids where the "
                        f"samples are others, and with cache.validation: null and validation_share: 0 where both hold out the same"
                    )
            found |= {place.id: (cache.folder, side) for place in cache.places}


def _check_sources(train: Sequence[Cache], held_out: Sequence[Cache]) -> None:
    """Raises UserError when clips of one file are on both sides: a held-out one would be a neighbour of one that is learnt."""
    out = {place.source: (place.id, cache.folder) for cache in held_out for place in cache.places if place.source}
    for cache in train:
        for place in cache.places:
            if place.source in out:
                other, folder = out[place.source]
                raise UserError(
                    f"train.cache: {place.id} of {cache.folder} is to be trained on, and {other} of {folder}, of the same source "
                    f"file ({place.source[:12]} ...), is held out, expected none of it on both sides; make one again without it"
                )


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
    kinds = header.kinds(kind for cache in some for kind in cache.header("pairs").split(","))
    sources = header.digest([cache.header("manifest_sha256") for cache in some])
    skeleton = max((cache.header("skeleton") for cache in some), key=len)  # that which shows more is named by more
    whole.metadata = first.metadata | {
        "cache.pairs": kinds, "cache.manifest_sha256": sources, "cache.skeleton": skeleton,
    }  # fmt: skip
    return whole
