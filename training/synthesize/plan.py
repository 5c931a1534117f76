"""What is to be made: which source drives which character. The same config and manifests always give the same units."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.config import Config
from training.errors import UserError
from training.hashing import sha256
from training.manifest import Sample, read

FAMILIES = {"human": "biped", "cartoon": "biped", "quadruped": "quadruped", "bird": "bird"}
"""Body of a character by a word of its appearance text: those of one family can make each other's motions."""

_ID = 24  # hex digits


@dataclass(frozen=True)
class Needs:
    """Which files a teacher reads: poses of the source, its video, poses of the reference."""

    poses: bool
    video: bool
    reference_poses: bool


@dataclass(frozen=True)
class Teaching:
    """What is known of a teacher before it runs: `digest` of all that shapes its results, and pixels that sizes are a
    multiple of."""

    digest: str
    needs: Needs
    multiple: int = 2


@dataclass(frozen=True)
class Unit:
    """One pseudo pair to be made: the motion of `source` on the character of `reference`, told `prompt`, from noise of `seed`."""

    id: str
    source: Sample
    reference: Sample
    prompt: str
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width of the target."""
        return self.source.frames, self.source.height, self.source.width


def character_file(sample: Sample) -> Path:
    """The picture or video that shows the character."""
    return sample.reference_image or sample.target_video


def character_poses(sample: Sample) -> Path | None:
    """The poses whose first frame is the character's own."""
    return sample.reference_poses or sample.poses


def prompt_for(source: Sample, reference: Sample) -> str:
    """Who does what: the reference's appearance with the source's motion, where both are known apart."""
    return f"{reference.appearance} {source.motion}" if reference.appearance and source.motion else source.caption


def manifests(config: Config) -> tuple[list[Sample], list[Sample]]:
    """Sources and references of a run. Raises UserError when a manifest is missing or wrong."""
    settings = config.synthesize
    own = settings.sources or config.out / "clips" / "manifest.jsonl"
    sources = read(own)
    return sources, sources if settings.references is None else read(settings.references)


def check_samples(config: Config, sources: Sequence[Sample], references: Sequence[Sample], teaching: Teaching) -> None:
    """Raises UserError for the first sample that the teacher cannot use."""
    for sample in sources:
        where = f"source {sample.id}"
        if sample.kind != "pose":
            raise UserError(f"{where} is of kind {sample.kind}, expected pose: clips as `data` makes them; give another `sources`")
        if abs(sample.fps - config.clip.fps) > 1e-3:
            raise UserError(f"{where} has {sample.fps:g} fps, expected clip.fps, {config.clip.fps:g}: make clips with `data` anew")
        try:
            config.clip.spec(sample.frames)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if sample.width % teaching.multiple or sample.height % teaching.multiple:
            raise UserError(
                f"{where} is {sample.width}x{sample.height}, expected sides that {teaching.multiple} divides: make clips with "
                f"`data` in such a size"
            )
        if teaching.needs.poses and sample.poses is None:
            raise UserError(f"{where} has no poses, which the teacher is driven by; run `data` with poses: extract, or file")
    if teaching.needs.reference_poses:
        for sample in references:
            if character_poses(sample) is None:
                raise UserError(
                    f"reference {sample.id} has neither reference_poses nor poses, expected one of them to retarget to; add them "
                    f"to its manifest, or set synthesize.retarget: false"
                )


def family(sample: Sample) -> str:
    """Body family by the appearance text. Raises UserError when that names none, or two."""
    found = {FAMILIES[word] for word in re.findall(r"[a-z]+", sample.appearance.lower()) if word in FAMILIES}
    if len(found) != 1:
        raise UserError(
            f"sample {sample.id} has the appearance {sample.appearance[:80]!r}, expected one that names one of "
            f"{', '.join(FAMILIES)}: synthesize.same_kind is for drawn worlds, turn it off"
        )
    return found.pop()


def _codes(values: Sequence[str]) -> dict[str, int]:
    return {value: number for number, value in enumerate(dict.fromkeys(values))}


def allowed_pairs(sources: Sequence[Sample], references: Sequence[Sample], same_kind: bool) -> np.ndarray:
    """Pairs of a source and another character, int64 (N, 2) of indices, source by source.

    Clips that were cut from one file show one character, and so do equal paths. With `same_kind`, bodies are of one family.
    """
    both = [*sources, *references]
    origins = _codes([s.source_sha256 or f"file {s.target_video}" for s in both])
    pictures = _codes([str(character_file(s)) for s in both])
    kinds = [family(s) if same_kind else "" for s in both]
    kind_codes = _codes(kinds)
    origin = np.array([origins[s.source_sha256 or f"file {s.target_video}"] for s in both], np.int64)
    picture = np.array([pictures[str(character_file(s))] for s in both], np.int64)
    kind = np.array([kind_codes[k] for k in kinds], np.int64)
    n, found = len(sources), []
    for i in range(n):
        other = (origin[n:] != origin[i]) & (picture[n:] != picture[i]) & (kind[n:] == kind[i])
        chosen = np.flatnonzero(other)
        found.append(np.stack([np.full_like(chosen, i), chosen], 1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def in_turn(pairs: np.ndarray, seed: int) -> np.ndarray:
    """Pairs (N, 2) at random, but so that every source comes once before any comes again.

    A source's video is what is learnt to be made: few of them among many pairs are learnt by heart.
    """
    pairs = pairs[np.random.default_rng(seed).permutation(len(pairs))]
    by_source = np.argsort(pairs[:, 0], kind="stable")
    _, counts = np.unique(pairs[:, 0], return_counts=True)
    turns = np.empty(len(pairs), np.int64)
    turns[by_source] = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    return pairs[np.argsort(turns, kind="stable")]


class _Hashes:
    """Content of files by path; a missing one has a hash of its own, so that it is another unit once it is there."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path | None) -> str:
        if path is None:
            return ""
        if path not in self._known:
            try:
                self._known[path] = sha256(path)
            except OSError:
                self._known[path] = "missing"
        return self._known[path]


def _text(sample: Sample) -> dict[str, object]:
    names = ("id", "source_sha256", "fps", "frames", "width", "height")
    return {name: getattr(sample, name) for name in names}


def plan_units(config: Config, sources: Sequence[Sample], references: Sequence[Sample], teaching: Teaching) -> list[Unit]:
    """All units of a run, in the order of its manifest.

    Of a larger `count` the first units are those of a smaller one. A unit's id is a hash of all that its result depends on:
    samples, the files that the teacher reads, the teacher, and the seed.

    Raises:
        UserError: a sample cannot be used, there is nothing to make, or `count` is more than there is.
    """
    settings, needs = config.synthesize, teaching.needs
    check_samples(config, sources, references, teaching)
    pairs = allowed_pairs(sources, references, settings.same_kind)
    if not len(pairs):
        raise UserError(
            f"there is nothing to make: {len(sources)} sources and {len(references)} references have no pair of two characters"
            f"{' of one body family' if settings.same_kind else ''}; give other `references`"
        )
    if settings.count > len(pairs):
        raise UserError(
            f"synthesize.count is {settings.count}, but {len(sources)} sources and {len(references)} references have "
            f"{len(pairs)} pairs of two characters; lower it, or 0 for all"
        )
    if settings.count:
        pairs = in_turn(pairs, settings.seed)[: settings.count]
    hashes, units = _Hashes(), {}
    for i, k in pairs.tolist():
        source, reference = _absolute(sources[i]), _absolute(references[k])
        prompt = prompt_for(source, reference)
        about = {
            "source": _text(source), "reference": _text(reference), "prompt": prompt, "teacher": teaching.digest,
            "seed": settings.seed, "character": hashes.of(character_file(reference)),
            "poses": hashes.of(source.poses) if needs.poses else "",
            "video": hashes.of(source.target_video) if needs.video else "",
            "reference_poses": hashes.of(character_poses(reference)) if needs.reference_poses else "",
        }  # fmt: skip
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:_ID]
        units[name] = Unit(name, source, reference, prompt, int(name[:12], 16))
    return list(units.values())


def _absolute(sample: Sample) -> Sample:
    """With paths that hold in another process's folder too."""
    names = ("target_video", "driving_video", "reference_image", "poses", "reference_poses")
    paths = {name: getattr(sample, name) for name in names}
    return sample.model_copy(update={name: path.absolute() for name, path in paths.items() if path is not None})


@dataclass(frozen=True)
class Package:
    """Units of one size that are made together. `wanted`: the ids of those that are still missing.

    What is in a package is the plan's and stays so when some of it is there already: a network's results can depend, in
    the last bits, on how many samples it is given at once.
    """

    units: tuple[Unit, ...]
    wanted: frozenset[str]


def packages(units: Sequence[Unit], size: int) -> list[Package]:
    """All units by `size`, of one shape each, in the order of their first unit."""
    buckets: dict[tuple[int, int, int], list[Unit]] = {}
    for unit in units:
        buckets.setdefault(unit.shape, []).append(unit)
    order = {unit.id: place for place, unit in enumerate(units)}
    cut = [tuple(bucket[k : k + size]) for bucket in buckets.values() for k in range(0, len(bucket), size)]
    cut.sort(key=lambda some: order[some[0].id])
    return [Package(some, frozenset(unit.id for unit in some)) for some in cut]


def missing(every: Sequence[Package], finished: set[str] | frozenset[str]) -> list[Package]:
    """The packages with something left to make."""
    left = [replace(package, wanted=package.wanted - finished) for package in every]
    return [package for package in left if package.wanted]
