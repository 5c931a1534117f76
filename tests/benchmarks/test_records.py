"""The figures that the README states are those on record, and the record is of the LoRAs that ship."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmarks import context, evidence, evidence_report, figures, quality, text
from benchmarks.quality import ROWS
from training import ablate, config
from training.hashing import sha256

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


OTHER_BUILDS = [("human", "cartoon"), ("cartoon", "human")]


def interval(values: Sequence[float]) -> tuple[float, float]:
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return float(found.low), float(found.high)


def record(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "docs" / name).read_text("utf-8"))


def test_the_text_is_understood_by_the_lora_that_ships() -> None:
    found = record("text.json")
    assert found["sha256"] == sha256(text.LORA), "measured was another: run.py bench text --json docs/text.json"
    assert found["p_wrong"] < 0.01 and found["p_none"] < 0.01
    said = re.search(r"in (\d+) of (\d+) held-out clips \(sign test p = (\S+)\) and no text\sin (\d+) \(p = (\S+)\)", README)
    assert said is not None
    assert [int(said[k]) for k in (1, 2, 4)] == [found["wins_over_wrong"], found["n"], found["wins_over_none"]]
    assert [float(said[3]), float(said[5])] == pytest.approx([found["p_wrong"], found["p_none"]], rel=0.06)


def test_the_quality_is_that_of_the_loras_that_ship() -> None:
    found = record("quality.json")
    assert found["loras"] == quality.shipped_loras(), "measured were others: run.py bench quality --json docs/quality.json"
    assert found["samplers"] == quality.samplers(), "sampled was otherwise: run.py bench quality --json docs/quality.json"
    assert f"bench quality --seed {found['seed']} --pairs {found['pairs']} --json" in README
    said = re.findall(r"^\| (pose|rgb)(, retargeted)? \| (\w+) → (\w+) \|(.+)\|$", README, re.MULTILINE)
    assert [(variant + "_retarget" * bool(more), *plans) for variant, more, *plans, _ in said] == list(quality.ROWS)
    sizes = [f"{size}{of}" for size in ("size", "length") for of in ("", "_decoded", "_vae", "_driver")]
    for (*_, cells), row in zip(said, found["rows"], strict=True):
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", cells)]
        keys = ("psnr", "psnr_still", "psnr_other", "iou", "iou_still", "iou_other", "colour", "colour_vae", *sizes)
        assert set(figures.FIGURES) <= set(row)
        for number, key in zip(numbers, keys, strict=True):
            places = 1 if key.startswith("psnr") else 3 if key.startswith("colour") else 2
            assert number == pytest.approx(row[key], abs=0.51 * 10**-places), (row["variant"], key)


def test_sizes_are_within_a_tenth_where_a_driver_of_another_build_is_retargeted() -> None:
    """In the mean of all parts and pairs, by every figure; not each part's area, and not each pair."""
    found, only = record("proportions.json"), ("pose_retarget",)
    assert (found["loras"], found["samplers"]) == (quality.shipped_loras(only), quality.samplers(only))
    command = f"bench quality --seed {found['seed']} --pairs {found['pairs']} --variants {only[0]} --json docs/proportions.json"
    assert command in README.replace("\n", " ")
    rows = {(row["driver"], row["reference"]): row for row in found["rows"]}
    assert list(rows) == OTHER_BUILDS
    for row in rows.values():
        assert all(part["length"] < 0.1 for part in row["parts"].values())
        assert row["size"] < 0.1
        assert max(interval(row[f"{key}_pairs"])[1] for key in ("length", "length_decoded", "size_decoded")) < 0.1
    said = re.findall(r"^\| (\w+) → (\w+) \| (\d\S+ / .+, .+)\|$", README, re.MULTILINE)
    assert [(driver, plan) for driver, plan, _ in said] == OTHER_BUILDS
    for (*_, cells), row in zip(said, rows.values(), strict=True):
        parts = row["parts"]
        expected = [row["length"], row["length_decoded"], *(part["length"] for part in parts.values())]
        expected += [row["size"], row["size_decoded"], parts["head"]["size"], row["length_vae"], row["size_vae"]]
        assert [float(one) for one in re.findall(r"\d\.\d+", cells)] == pytest.approx(expected, abs=0.00056)
    first, second = rows.values()
    seen = {"arm": 0.6, "leg": 0.8}
    parts = [named for row in (first, second) for named in row["parts"].items()]
    limbs = [part["length"] / seen[name[-3:]] for name, part in parts if name[-3:] in seen]
    said = re.search(
        r"legs are over it \((\S+), (\S+) and (\S+)\)\. Areas of (\d+) and (\d+) of the 72 pairs are over a\stenth, up to (\S+), "
        r"lengths of (\d+) and (\d+), up to (\S+)\. .+?limb's mean\swould be (\S+), just over a tenth\.\n",
        README,
        re.DOTALL,
    )
    assert said is not None and max(limbs) > 0.1
    large = [part["size"] for name, part in second["parts"].items() if name == "head" or name.endswith("leg")]
    assert sorted(large) == sorted(part["size"] for _, part in parts if part["size"] >= 0.1), "named are the parts that are not"
    assert [float(said[k]) for k in (1, 2, 3, 10)] == pytest.approx([*large, max(limbs)], abs=0.00056)
    for k, key in ((4, "size_pairs"), (7, "length_pairs")):
        assert [int(said[k]), int(said[k + 1])] == [sum(value > 0.1 for value in row[key]) for row in (first, second)]
        assert float(said[k + 2]) == pytest.approx(max(first[key] + second[key]), abs=0.0051)
    expected = [interval(row[key]) for key in ("length_pairs", "size_decoded_pairs", "size_pairs") for row in (first, second)]
    assert max(high for _, high in expected[:5]) < 0.1 < expected[5][1], "the pairs don't settle it"
    said = re.search(
        r"95% intervals (\[.+?\]) and (\[.+?\])\),.+?areas surely after the VAE \((\[.+?\]) and (\[.+?\])\)"
        r".+?cartoon\s\((\[.+?\])\).+?72 pairs don't settle \((\[.+?\])\)",
        README,
        re.DOTALL,
    )
    assert said is not None and [json.loads(one) for one in said.groups()] == [pytest.approx(one, abs=0.00056) for one in expected]


def test_what_retarget_and_its_lora_bring_to_sizes_is_as_on_record() -> None:
    rows = {(row["variant"], row["driver"], row["reference"]): row for row in record("quality.json")["rows"]}
    first, second = ([rows[(name, *plans)] for name in ("pose", "pose_retarget")] for plans in OTHER_BUILDS)
    said = re.search(
        r"Without Retarget, in the table.+?\((\S+), after the VAE (\S+); with it.+? (\S+) and (\S+), "
        r"a gain that 12 pairs don't settle.+?\((\S+) and (\S+); with it (\S+) and (\S+)\)",
        README,
        re.DOTALL,
    )
    expected = [row[key] for row in (*second, *first) for key in ("size", "size_decoded")]
    assert said is not None and [float(one) for one in said.groups()] == pytest.approx(expected, abs=0.00056)
    for sure, (without, retargeted) in ((True, first), (False, second)):
        assert retargeted["size"] < 0.1 and retargeted["size_decoded"] < 0.1 and max(without["length"], retargeted["length"]) < 0.1
        for key in ("size_pairs", "size_decoded_pairs"):
            assert (interval(np.subtract(without[key], retargeted[key]))[0] > 0) == sure


def test_drivers_of_another_build_are() -> None:
    ratios = []
    for row in (ROWS.index(("pose_retarget", *plans)) for plans in OTHER_BUILDS):
        for pair in (quality.sample_pair(0, row, index) for index in range(72)):
            of = [scene.character.proportions["head"] / scene.character.proportions["arm"] for scene in (pair.scene, pair.driver)]
            ratios.append(max(of) / min(of))
    said = re.search(r"its head (\S+) to (\S+) times as large beside its arms", README)
    assert said is not None and [float(one) for one in said.groups()] == pytest.approx([min(ratios), max(ratios)], abs=0.051)
    assert min(ratios) > 1.5


def test_what_augmentation_and_retargeting_bring_is_as_on_record() -> None:
    variants, rows = ("pose", "pose_retarget"), {}
    recipe = ablate.load(evidence.RECIPE)
    for lora, trained, version in (("pose_no_aug", "without", "15cfd18461913abe"), ("pose_full", "with", "009e81704fbd701c")):
        found = record(f"proportions_{lora}.json")
        assert evidence.version(recipe, lora) == version, f"train {lora} again, and measure it"
        assert list(found["loras"]) == [f"{lora}.safetensors"] and found["samplers"] == quality.samplers(variants)
        assert (found["seed"], found["pairs"]) == (0, 16)
        for row in found["rows"]:
            rows[trained, row["variant"], (row["driver"], row["reference"])] = row
    assert "bench quality --seed 0 --pairs 16 --variants pose pose_retarget --lora runs/pose_full.safetensors" in README
    said = re.findall(r"^\| (without|with) \| (no|yes) \|(.+)\|$", README, re.MULTILINE)
    assert [row[:2] for row in said] == [("without", "no"), ("without", "yes"), ("with", "no"), ("with", "yes")]
    for trained, retargeted, cells in said:
        of = [rows[trained, variants[retargeted == "yes"], plans] for plans in OTHER_BUILDS]
        expected = [row[key] for row in of for key in ("psnr", "length", "size")]
        for number, figure in zip(re.findall(r"\d+\.\d+", cells), expected, strict=True):
            assert float(number) == pytest.approx(figure, abs=0.051 if figure > 1 else 0.00051)

    def gains(one: tuple[str, str], other: tuple[str, str], plans: tuple[str, str]) -> list[tuple[float, float, float]]:
        """PSNR, length and area: mean and interval of the gain by pair."""
        found = []
        for key, sign in (("psnr", 1), ("length", -1), ("size", -1)):
            gain = sign * np.subtract(rows[(*one, plans)][f"{key}_pairs"], rows[(*other, plans)][f"{key}_pairs"])
            found.append((float(gain.mean()), *interval(gain)))
        return found

    named = {
        "neither": ("without", "pose"), "augmentation alone": ("with", "pose"), "Retarget alone": ("without", "pose_retarget"),
        "both": ("with", "pose_retarget"),
    }  # fmt: skip
    said = re.findall(r"^\| (both|\w+ alone) over (neither|\w+ alone) \|(.+)\|$", README, re.MULTILINE)
    assert len(said) == 5
    for one, other, cells in said:
        expected = [values for plans in OTHER_BUILDS for values in gains(named[one], named[other], plans)]
        stated = [[float(one) for one in re.findall(r"[+-]\d+\.\d+", cell)] for cell in cells.split("|")]
        for k, (given, values) in enumerate(zip(stated, expected, strict=True)):
            assert given == pytest.approx(values, abs=0.00051 if k % 3 else 0.051), (one, other)
            if other == "neither":
                undecided = (one, k) == ("both", 4)
                assert (values[1] > 0) != undecided, "the text says which gains are sure"
            elif other == "Retarget alone":
                assert values[0] < 0 and (values[2] < 0) == (k >= 3), "surely worse from cartoon to human"
            else:
                assert (values[1] > 0) == (k < 4), "no gain in sizes from cartoon to human"
    psnr = gains(named["augmentation alone"], named["neither"], ("human", "human"))[0]
    assert "human to human 0.76 dB [0.02, 1.45]" in README and psnr == pytest.approx((-0.76, -1.45, -0.02), abs=0.0051)


@pytest.mark.parametrize(("name", "bench"), [("evidence.json", evidence), ("motion_context.json", context)])
def test_rows_are_sampled_as_the_bench_does_it(name: str, bench: ModuleType) -> None:
    found = record(name)
    assert {key: found.get(key) for key in asdict(bench.SAMPLING)} == asdict(bench.SAMPLING)


def test_rows_are_of_the_recipe_as_it_is() -> None:
    found, recipe = record("evidence.json"), ablate.load(evidence.RECIPE)
    for row in found["rows"]:
        assert row["version"] == evidence.version(recipe, row["row"]), f"train {row['row']} again, or take it out"


def test_the_evidence_is_whole_and_the_page_says_what_it_says() -> None:
    found = record("evidence.json")
    assert {row["row"] for row in found["rows"]} == {*evidence.ROWS, evidence.TEACHER}
    page = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    stated = page.partition(evidence_report.BEGIN)[2].partition(evidence_report.END)[0]
    assert stated.strip() == evidence_report.markdown(found, "evidence.png"), "run.py bench evidence --report docs/evidence.md"
    seconds = [row["seconds"] for row in found["rows"] if "seconds" in row]  # older rows do not say
    assert max(seconds) * len(found["rows"]) <= 30 * 60, "the table is to be made again in half an hour"


def test_end_to_end_gains_what_was_aimed_at_with_animals() -> None:
    rows = {row["row"]: row for row in record("evidence.json")["rows"]}
    synthetic, poses, ceiling = (rows[name]["nonhuman"] for name in ("rgb_synthetic", "pose_full", "rgb_ground_truth"))
    assert evidence_report.difference(synthetic, poses)[0] >= 2
    assert evidence_report.gap_share(synthetic, ceiling) >= 0.8


def test_the_evidence_is_sampled_as_the_small_workflows_are() -> None:
    for given in quality.samplers().values():
        assert (given["sampler_name"], given["steps"], given["shift"]) == astuple(evidence.SAMPLING)
    preset = config.from_values({"preset": "marionette", "out": "."}, "test").synthesize
    assert (preset.sampler, preset.steps, preset.shift) == astuple(evidence.SAMPLING)


def test_drawing_is_as_quick_as_it_was_to_be() -> None:
    found = record("pose_draw.json")
    assert found["dwpose"]["median"] >= 400 and found["ratio"]["median"] >= 3
    pattern = r"Pose Draw makes (\d+) whole-body.+?, (\S+) times as many.+?first\sround.+?(\d+) and (\S+)\stimes"
    said = re.search(pattern, README, re.DOTALL)
    assert said is not None
    rows = (found["dwpose"]["median"], found["ratio"]["median"], found["dwpose"]["first"], found["ratio"]["first"])
    assert [float(said[k]) for k in (1, 2, 3, 4)] == pytest.approx(rows, rel=0.02)
