"""`train.only`: a part of a cache, so that another filtering or a review of the pairs needs no new cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training import manifest
from training.errors import UserError
from training.latents import header
from training.latents.mirror import MIRRORED
from training.latents.read import Cache
from training.latents.split import kind_of, usable


def chosen(cache: Cache, held_out: Cache, paths: Sequence[Path]) -> Cache:
    """The samples to train on that a manifest, or one of several, lists and that none rejects, seen in a mirror too where the
    cache has them so.

    They are known by their ids: a manifest is the one that was cached, or what `filter` or `review` made of it. Those that are
    held out stay so.

    Raises:
        UserError: a manifest lists none to train on, or one that the cache lacks; nothing of a cache, or of one of several, is
            left, as no manifest lists it, or another rejects what one lists.
    """
    if not len(cache):
        return cache  # what is to be done first is said of a missing cache in one place
    there = {place.id for place in cache.places}
    known = there | {place.id for place in held_out.places}
    pairs, rejected = dict[str, str](), set[str]()
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
        pairs |= {sample.id: sample.pairs for sample in samples}
        rejected |= {sample.id for sample in manifest.read(path) if sample.accepted is False}
    kept = pairs.keys() - rejected
    part = cache.only({id_ for id_ in there if id_.removesuffix(MIRRORED) in kept})
    left = {place.shard.parent for place in part.places}
    for folder in dict.fromkeys(place.shard.parent for place in cache.places):
        if folder not in left:
            listed = any(place.id in pairs for place in cache.places if place.shard.parent == folder)
            why, mend = (
                ("what one manifest lists of it another rejects", "leave out the one that rejects")
                if listed
                else ("no manifest lists any of it", "name its manifest too, or leave the cache out of train.cache")
            )
            raise UserError(f"train.only leaves nothing of {folder.parent} to train on: {why}; {mend}")
    if cache.header("variant") != "pose":  # whose pairs are of a clip with itself, whatever a manifest says
        part.metadata = part.metadata | {"cache.pairs": header.kinds(pairs[id_] for id_ in kept & there)}
    return part
