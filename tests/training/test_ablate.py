"""The verb `ablate`: runs in their order, each once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from training import ablate
from training.__main__ import main
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "training" / "recipes" / "marionette.yaml"
CLIPS = {"verbs": ["data"], "config": {"data": {"world": {"count": 2}}}}


def recipe(tmp_path: Path, **runs: dict) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"out": str(tmp_path / "out"), "base": {"preset": "marionette"}, "runs": runs}), "utf-8")
    return path


def test_the_shipped_recipe_is_the_paper_s_table() -> None:
    from benchmarks.evidence import ROWS

    made = ablate.load(SHIPPED)
    assert set(ROWS) <= set(made.runs)
    full = ablate.settings_of(made, "pose_full")
    changes = {
        "pose_no_norm": ("augment", "normalise"), "pose_no_bone": ("augment", "bones"), "pose_no_aug": ("augment", "other_bodies"),
    }  # fmt: skip
    for row, (section, key) in changes.items():
        own = getattr(ablate.settings_of(made, row).cache, section)
        assert getattr(own, key) == 0 != getattr(getattr(full.cache, section), key)
    for first in ("pose_full", "rgb_synthetic"):
        one = ablate.settings_of(made, first).train
        for row in (row for row in ROWS if row.startswith(first[:3])):
            own = ablate.settings_of(made, row).train
            assert (own.steps, own.batch, own.rank, own.lr) == (one.steps, one.batch, one.rank, one.lr), row
    assert ablate.settings_of(made, "rgb_cold").train.init_lora is None
    warm = {ablate.settings_of(made, row).train.init_lora for row in ("rgb_synthetic", "rgb_unfiltered", "rgb_ground_truth")}
    assert warm == {ablate.settings_of(made, "synthetic").synthesize.lora} and None not in warm
    seen = {row: ablate.settings_of(made, row).train for row in ("rgb_synthetic", "rgb_cold", "rgb_unfiltered")}
    assert len({train.cache for train in seen.values()}) == 1
    kept = tuple(Path("runs/evidence", name, "kept/manifest.jsonl") for name in ("kept", "kept_animals"))
    assert [train.only for train in seen.values()] == [kept, kept, None], "the same caches; the filter chooses for two"


@pytest.mark.parametrize("name", ablate.load(SHIPPED).runs)
def test_runs_need_those_whose_files_they_read(name: str) -> None:
    made = ablate.load(SHIPPED)
    settings, needed = ablate.settings_of(made, name), ablate.ordered(made, [name])
    read = {"cache": [settings.cache.manifest, settings.cache.validation], "train": [settings.train.cache, settings.train.only]}
    read |= {"synthesize": [settings.synthesize.sources, settings.synthesize.references], "filter": [settings.filter.manifest]}
    for verb in made.runs[name].verbs:
        for path in (path for paths in read.get(verb, []) for path in (paths if isinstance(paths, tuple) else [paths])):
            assert path is None or path.relative_to(made.out).parts[0] in needed, path


def test_no_run_but_the_ceiling_sees_a_true_pair() -> None:
    made = ablate.load(SHIPPED)
    using = {name for name in made.runs if "pairs" in ablate.ordered(made, [name])}
    assert using == {"pairs", "rgb_ground_truth"}


def test_runs_come_after_what_they_need(tmp_path: Path) -> None:
    made = ablate.load(recipe(tmp_path, c={**CLIPS, "needs": ["b"]}, b={**CLIPS, "needs": ["a"]}, a=CLIPS, d=CLIPS))
    assert ablate.ordered(made, ["c"]) == ["a", "b", "c"]
    assert ablate.ordered(made, ["d", "b"]) == ["d", "a", "b"]
    with pytest.raises(UserError, match=r"no run 'x'"):
        ablate.ordered(made, ["x"])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({**CLIPS, "verbs": ["plan"]}, "has the verb 'plan'"),
        ({**CLIPS, "needs": ["x"]}, "needs 'x'"),
        ({**CLIPS, "config": {"train": {"stepz": 1}}}, r"train\.stepz \(unknown key\)"),
        ({**CLIPS, "colour": 1}, "colour"),
    ],
)
def test_a_recipe_that_is_wrong_is_told_before_anything_runs(run: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        ablate.load(recipe(tmp_path, a=run))


def test_a_circle_is_told(tmp_path: Path) -> None:
    made = ablate.load(recipe(tmp_path, a={**CLIPS, "needs": ["b"]}, b={**CLIPS, "needs": ["a"]}))
    with pytest.raises(UserError, match="a -> b -> a"):
        ablate.ordered(made, ["a"])


def test_a_run_is_made_once_and_not_mixed_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, a=CLIPS)
    assert main(["ablate", str(path)]) == 0
    made = tmp_path / "out" / "a" / "clips" / "manifest.jsonl"
    assert len(made.read_text("utf-8").splitlines()) == 2
    capfd.readouterr()
    assert main(["ablate", str(path)]) == 0
    assert "a: finished" in capfd.readouterr().out
    recipe(tmp_path, a={**CLIPS, "config": {"data": {"world": {"count": 3}}}})
    assert main(["ablate", str(path)]) == 1
    assert "another version of its run" in capfd.readouterr().err


def test_a_run_that_fails_stops_the_rest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failing = {"verbs": ["cache"], "config": {"cache": {"manifest": "{out}/nothing.jsonl"}}}
    assert main(["ablate", str(recipe(tmp_path, a=failing, b={**CLIPS, "needs": ["a"]}))]) == 1
    error = capfd.readouterr().err
    assert f"{tmp_path.as_posix()}/out/nothing.jsonl" in error and "a: cache ended with status 1" in error
    assert not (tmp_path / "out" / "b").exists()


def test_listing_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", str(recipe(tmp_path, a=CLIPS)), "--list"]) == 0
    assert "--run a" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
