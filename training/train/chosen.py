"""`train.only`: a part of a cache, so that another filtering or a review of the pairs needs no new cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.errors import UserError
from training.latents.mirror import MIRRORED
from training.latents.read import Cache
from training.latents.split import kind_of, usable


def chosen(cache: Cache, held_out: Cache, paths: Path | Sequence[Path]) -> Cache:
    """The samples to train on that a manifest, or one of several, lists and nobody rejected, seen in a mirror too where the cache
    has them so.

    They are known by their ids: a manifest is the one that was cached, or what `filter` or `review` made of it. Those that are
    held out stay so.

    Raises:
        UserError: they list none to train on, or one that the cache lacks.
    """
    if not len(cache):
        return cache  # what is to be done first is said of a missing cache in one place
    named = [paths] if isinstance(paths, Path) else list(paths)
    listed = [sample for one in named for sample in usable(one, cache.header("variant"))[0]]
    path = " and ".join(map(str, named))
    ids = {sample.id for sample in listed}
    there = {place.id for place in cache.places}
    lacking = ids - there - {place.id for place in held_out.places}
    if lacking:
        raise UserError(
            f"train.only: {path} lists {len(ids)} samples, of which {len(lacking)} are not in {cache.name} "
            f"({min(lacking)}), expected a part of the manifest that was cached; name it, or cache what it lists"
        )
    part = cache.only({id_ for id_ in there if id_.removesuffix(MIRRORED) in ids})
    if not len(part):
        raise UserError(
            f"train.only: {path} lists no accepted sample of kind {kind_of(cache.header('variant'))} that "
            f"{cache.name} has to train on, expected some; lower the thresholds of `filter`, or leave train.only out"
        )
    if any(sample.pairs for sample in listed):
        kinds = sorted({sample.pairs for sample in listed if sample.id in there})
        part.metadata = part.metadata | {"cache.pairs": ",".join(kinds)}
    return part
