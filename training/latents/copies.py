"""The copy trap in a cache: drivers that show their own target, looked for before the first shard is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamactor_core.clips import ClipSpec
from training.data import copytrap
from training.data.dropping import Drop
from training.errors import UserError
from training.latents.encode import read_driver, read_target
from training.latents.mirror import Mirrored
from training.manifest import Sample

_SHOWN = 20  # copies that are named


def copied(sample: Sample, spec: ClipSpec) -> str:
    """What is wrong with a driver that shows the target itself, whatever the files are called; empty for another's. Raises
    UserError for files that are not what the manifest says."""
    if isinstance(sample, Mirrored):  # the one that it mirrors is looked at
        return ""
    target, driver = read_target(sample), read_driver(sample, spec)
    try:
        copytrap.check([copytrap.small(one) for one in target[spec.lead_in :]], [copytrap.small(one) for one in driver], spec.fps)
    except Drop as drop:
        return f"sample {sample.id}: {sample.driving_video}: {drop.detail} who does the same"
    return ""


def refuse(found: Iterable[Sequence[str]], lists: Sequence[Path]) -> None:
    """Raises UserError that names what is wrong with all samples of these manifests, up to a number: without a sample there are
    other shards."""
    wrong = [one for part in found for one in part]
    if wrong:
        listed = "\n".join(f"  {one}" for one in wrong[:_SHOWN]) + ("\n  ..." if len(wrong) > _SHOWN else "")
        raise UserError(
            f"{' and '.join(map(str, lists))}: drivers that show their own target, which teaches to copy, {len(wrong)} of them; "
            f"take their lines out, and look at how the others were made:\n{listed}"
        )
