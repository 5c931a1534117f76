"""`python -m training filter CONFIG`: the clips whose scores are good enough, `<out>/kept/manifest.jsonl`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headless.atomic import atomic
from training import config as configs
from training import manifest
from training.errors import UserError
from training.manifest import Sample
from training.score.measures import MEASURES


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of this verb."""
    parser.add_argument("config", type=Path, help="YAML of the run")


def main(options: argparse.Namespace) -> int | None:
    """Write the kept samples, what was dropped, and a table of the rules. Raises UserError: scores are missing, nothing is kept."""
    run = configs.load(options.config)
    source = run.filter.manifest or run.out / "scores" / "manifest.jsonl"
    samples = manifest.read(source)
    if not samples:
        raise UserError(f"{source} is empty, expected samples with scores; `python -m training score` makes them")
    rules = rules_of(run, samples, source)
    failed = {rule.name: [sample.id for sample in samples if not rule.passes(sample)] for rule in rules}
    reasons: dict[str, list[str]] = {}
    for name, ids in failed.items():
        for one in ids:
            reasons.setdefault(one, []).append(name)
    kept = [sample for sample in samples if sample.id not in reasons]
    table = table_of(len(samples), len(kept), failed)
    if not kept:
        raise UserError(f"all {len(samples)} samples of {source} are dropped, expected some to pass; relax the rules\n{table}")
    folder = run.out / "kept"
    configs.save(run, folder)
    with atomic(folder / "dropped.jsonl") as partial:
        lines = (json.dumps({"id": sample.id, "rules": reasons[sample.id]}) for sample in samples if sample.id in reasons)
        partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    with atomic(folder / "table.txt") as partial:
        partial.write_text(table + "\n", "utf-8")
    manifest.write(folder / "manifest.jsonl", kept)
    print(table)
    return 0


@dataclass(frozen=True)
class Rule:
    """One rule, as it stands in the table, and whether a sample passes it. Rules do not see what others drop."""

    name: str
    passes: Callable[[Sample], bool]


def grade_mean(sample: Sample) -> float:
    """Mean of the Video-Bench dimensions that the sample has. Raises ZeroDivisionError without any."""
    values = [sample.scores[name] for name in configs.GRADES if name in sample.scores]
    return sum(values) / len(values)


def rules_of(run: configs.Config, samples: Sequence[Sample], source: Path) -> list[Rule]:
    """The rules of a run.

    Raises:
        UserError: a score that a rule needs is missing in a sample, or is none that there is.
    """
    settings = run.filter
    rules = []
    graded = sorted({name for sample in samples for name in sample.scores} & set(configs.GRADES))
    if run.score.service != "none":
        graded = sorted({*graded, *run.score.dimensions})
    if graded:
        _need(samples, graded, source)
        limit = settings.threshold
        rules.append(Rule(f"mean of {len(graded)} Video-Bench grades > {limit:g}", lambda sample: grade_mean(sample) > limit))
    _need(samples, sorted({*settings.least, *settings.most, *settings.keep_best}), source)
    for name, least in settings.least.items():
        rules.append(Rule(f"{name} >= {least:g}", lambda sample, name=name, least=least: sample.scores[name] >= least))
    for name, most in settings.most.items():
        rules.append(Rule(f"{name} <= {most:g}", lambda sample, name=name, most=most: sample.scores[name] <= most))
    for name, share in settings.keep_best.items():
        best = best_share(samples, name, share)
        rules.append(Rule(f"{name} among the best {share:.0%}", lambda sample, best=best: sample.id in best))
    return rules


def best_share(samples: Sequence[Sample], name: str, share: float) -> frozenset[str]:
    """Ids of the best share of all samples by a score, rounded to whole samples, at least one; of equals, the smaller ids."""
    higher = MEASURES[name].higher_is_better if name in MEASURES else True
    ordered = sorted(samples, key=lambda one: (-one.scores[name] if higher else one.scores[name], one.id))
    return frozenset(one.id for one in ordered[: max(1, int(share * len(samples) + 0.5))])


def _need(samples: Sequence[Sample], names: Sequence[str], source: Path) -> None:
    for name in names:
        if name not in MEASURES and name not in configs.GRADES:
            raise UserError(f"filter: there is no score {name}, expected one of {', '.join([*MEASURES, *configs.GRADES])}")
        lacking = [sample.id for sample in samples if name not in sample.scores]
        if lacking:
            raise UserError(
                f"{source}: {len(lacking)} of {len(samples)} samples have no score {name} ({', '.join(lacking[:5])}), which a "
                f"rule of filter needs; run `python -m training score` with it first, or take the rule away"
            )


def table_of(count: int, kept: int, failed: dict[str, list[str]]) -> str:
    """What each rule drops, and what it alone drops."""
    times: dict[str, int] = {}
    for ids in failed.values():
        for one in ids:
            times[one] = times.get(one, 0) + 1
    wide = max(len(name) for name in (*failed, "kept", "rule"))
    lines = [f"{'rule':{wide}}  dropped  by it alone"]
    for name, ids in failed.items():
        lines.append(f"{name:{wide}}  {len(ids):7}  {sum(times[one] == 1 for one in ids):11}")
    if not failed:
        lines.append("(no rule: there are no grades, and filter has neither least, most nor keep_best)")
    return "\n".join([*lines, f"{'kept':{wide}}  {kept:7}  of {count}"])
