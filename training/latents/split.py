"""Which samples of a manifest are trained on, and which are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training import manifest
from training.config import Config
from training.errors import UserError
from training.latents.mirror import in_mirror
from training.manifest import Sample


def manifest_of(settings: Config) -> Path:
    """The list of a run's clips or pairs."""
    return settings.cache.manifest or settings.out / "clips" / "manifest.jsonl"


def split(settings: Config) -> dict[str, list[Sample]]:
    """Samples of `train` and `validation`. Raises UserError when there are none, or when they share a source."""
    return sides(settings)[0]


def kind_of(variant: str) -> str:
    """The kind of the samples that a LoRA of a variant learns from."""
    return "pose" if variant == "pose" else "e2e"


def usable(path: Path, variant: str) -> tuple[list[Sample], Counter[str]]:
    """A manifest's samples that a LoRA of a variant can learn from, and how many others there are, by the reason."""
    kind = kind_of(variant)
    found = manifest.read(path)
    left = [sample for sample in found if sample.kind == kind]
    kept = [sample for sample in left if sample.accepted is not False]
    return kept, Counter({f"of another kind than {kind}": len(found) - len(left), "rejected": len(left) - len(kept)})


def sides(settings: Config) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """The split, and how many samples are on neither side, by the reason."""
    path = manifest_of(settings)
    samples, skipped = usable(path, settings.variant)
    if settings.cache.validation is not None:
        held_out, more = usable(settings.cache.validation, settings.variant)
        skipped.update(more)
        train = samples
    else:
        # all clips of one source go to one side, or a held-out clip would be a neighbour of a trained one
        sources = list(dict.fromkeys(s.source_sha256 or s.id for s in samples))
        last = set(sources[len(sources) - _held_out(settings.cache.validation_share, len(sources)) :])
        held_out = [s for s in samples if (s.source_sha256 or s.id) in last]
        train = [s for s in samples if (s.source_sha256 or s.id) not in last]
    if not train:
        kind = kind_of(settings.variant)
        raise UserError(f"{path} has no sample of kind {kind} to train on, expected some for variant {settings.variant}")
    shared = {s.source_sha256 for s in train if s.source_sha256} & {s.source_sha256 for s in held_out}
    if shared:
        raise UserError(f"training and validation share {len(shared)} source files ({sorted(shared)[0][:12]} ...), expected none")
    if settings.cache.mirror:
        train = [*train, *map(in_mirror, train)]
    return {"train": train, "validation": held_out}, skipped


def _held_out(share: float, sources: int) -> int:
    """How many sources are held out: without one nobody would see that a run learns its clips by heart."""
    return max(round(share * sources), 1 if share and sources > 1 else 0)


def concatenated(sample: Sample) -> str:
    """Motion and appearance one after the other, as they are without a language model that fuses them. Raises UserError."""
    if not sample.motion or not sample.appearance:
        raise UserError(f"sample {sample.id} lacks its motion or appearance text, expected both for cache.text: concatenated")
    return f"the character {sample.motion}. {sample.appearance}"


def check_samples(settings: Config, samples: Sequence[Sample]) -> None:
    """Raises UserError for a clip that no bucket, rate or backbone of the run fits, before anything is encoded."""
    sizes = {tuple(size) for size in settings.clip.sizes}
    for sample in samples:
        where = f"sample {sample.id}"
        if (sample.width, sample.height) not in sizes:
            expected = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
            raise UserError(f"{where} is {sample.width}x{sample.height}, expected one of clip.sizes: {expected}; run `data` again")
        if abs(sample.fps - settings.clip.fps) > 1e-3:
            raise UserError(f"{where} has {sample.fps:g} fps, expected clip.fps, {settings.clip.fps:g}; run `data` again")
        if sample.frames > settings.clip.frames:
            raise UserError(f"{where} has {sample.frames} frames, expected at most clip.frames, {settings.clip.frames}")
        try:
            settings.clip.spec(sample.frames)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if settings.cache.text == "concatenated":
            concatenated(sample)
        for path in (sample.target_video, sample.driving_video, sample.poses, sample.reference_image):
            if path is not None and not path.is_file():
                raise UserError(f"{where}: there is no {path}, expected it where the manifest says")
        if sample.driving_video is not None:
            same_bytes = sample.driving_sha256 and sample.driving_sha256.lower() == sample.source_sha256.lower()
            if same_bytes or sample.driving_video.samefile(sample.target_video):
                raise UserError(
                    f"{where}: its driving_video, {sample.driving_video}, is its target_video, expected another character who does "
                    f"the same: a model would learn to copy it; take its line out of the manifest"
                )
