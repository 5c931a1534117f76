"""`train.only`: a part of a cache, so that another filtering or a review of the pairs needs no new cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training import manifest
from training.errors import UserError
from training.latents.mirror import MIRRORED
from training.latents.read import Cache
from training.latents.split import kind_of, usable


def chosen(cache: Cache, held_out: Cache, paths: Sequence[Path]) -> Cache:
    """The samples to train on that a manifest, or one of several, lists and that none rejects, seen in a mirror too where the
    cache has them so.

    They are known by their ids: a manifest is the one that was cached, or what `filter` or `review` made of it. Those that are
    held out stay so.

    Raises:
        UserError: a manifest lists none to train on, or one that the cache lacks; of several caches one has none that is listed.
    """
    if not len(cache):
        return cache  # what is to be done first is said of a missing cache in one place
    there = {place.id for place in cache.places}
    known = there | {place.id for place in held_out.places}
    listed, rejected, kinds = set[str](), set[str](), set[str]()
    for path in paths:
        samples, _ = usable(path, cache.header("variant"))
        ids = {sample.id for sample in samples}
        if lacking := ids - known:
            raise UserError(
                f"train.only: {path} lists {len(ids)} samples, of which {len(lacking)} are not in {cache.name} "
                f"({min(lacking)}), expected a part of the manifest that was cached; name it, or cache what it lists"
            )
        if not ids & there:
            raise UserError(
                f"train.only: {path} lists no accepted sample of kind {kind_of(cache.header('variant'))} that "
                f"{cache.name} has to train on, expected some; lower the thresholds of `filter`, or leave train.only out"
            )
        listed |= ids
        rejected |= {sample.id for sample in manifest.read(path) if sample.accepted is False}
        kinds |= {sample.pairs for sample in samples if sample.id in there and sample.pairs}
    part = cache.only({id_ for id_ in there if id_.removesuffix(MIRRORED) in listed - rejected})
    left = {place.shard for place in part.places}
    for folder in dict.fromkeys(place.shard.parent for place in cache.places):
        if not any(shard.parent == folder for shard in left):
            raise UserError(
                f"train.only lists nothing of {folder.parent}, which train.cache names, expected some of each; list its manifest "
                f"too, or leave the cache out"
            )
    if kinds:
        part.metadata = part.metadata | {"cache.pairs": ",".join(sorted(kinds))}
    return part
