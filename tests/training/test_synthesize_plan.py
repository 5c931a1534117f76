"""What `synthesize` plans: which pairs, in which order, under which ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthesis import config, sample

from training.errors import UserError
from training.manifest import Sample
from training.synthesize.plan import (
    Needs,
    Teaching,
    allowed_pairs,
    in_turn,
    manifests,
    missing,
    packages,
    plan_units,
    prompt_for,
)

TEACHING = Teaching("a teacher", Needs(poses=True, video=False, reference_poses=True), 16)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Four characters; their files hold a few bytes, which the plan only hashes."""
    made = [sample(tmp_path, f"s{k}", plan) for k, plan in enumerate(("human", "cartoon", "quadruped", "bird"))]
    for one in made:
        one.target_video.write_text(one.id)
        one.poses.write_text(one.id)
    return made


def pairs(units: list) -> list[tuple[str, str]]:
    return [(unit.source.id, unit.reference.id) for unit in units]


def test_every_source_drives_every_other_character(tmp_path: Path, samples: list[Sample]) -> None:
    units = plan_units(config(tmp_path, same_kind=False), samples, samples, TEACHING)
    assert pairs(units) == [(a.id, b.id) for a in samples for b in samples if a is not b]
    assert len({unit.id for unit in units}) == len({unit.seed for unit in units}) == 12
    assert all(unit.prompt == f"{unit.reference.appearance} waves" for unit in units)


def test_bodies_of_one_family(tmp_path: Path, samples: list[Sample]) -> None:
    units = plan_units(config(tmp_path, same_kind=True), samples, samples, TEACHING)
    assert pairs(units) == [("s0", "s1"), ("s1", "s0")], "a human and a cartoon are of one family, animals are alone here"
    strange = [samples[0], sample(tmp_path, "s9", appearance="an old robot")]
    with pytest.raises(UserError, match=r"s9 has the appearance 'an old robot'.*same_kind"):
        plan_units(config(tmp_path, same_kind=True), strange, strange, TEACHING)


def test_clips_of_one_file_or_one_picture_show_one_character(tmp_path: Path) -> None:
    a, b, c = (sample(tmp_path, name, source_sha256=digest) for name, digest in (("a", "1"), ("b", "1"), ("c", "2")))
    assert allowed_pairs([a, b, c], [a, b, c], False).tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    x, y = (sample(tmp_path, name, reference_image=tmp_path / "same.png") for name in ("x", "y"))
    assert len(allowed_pairs([x, y], [x, y], False)) == 0
    # ids of two manifests may meet by chance
    other = sample(tmp_path / "other", "a", source_sha256="3")
    assert allowed_pairs([a], [other], False).tolist() == [[0, 0]]


def test_a_count_draws_without_repetition_and_a_larger_one_goes_on(tmp_path: Path, samples: list[Sample]) -> None:
    def drawn(**settings: int) -> list[str]:
        return [unit.id for unit in plan_units(config(tmp_path, same_kind=False, **settings), samples, samples, TEACHING)]

    five = drawn(count=5)
    assert len(set(five)) == 5 and five == drawn(count=5) == drawn(count=9)[:5]
    assert set(drawn(count=12)) == set(drawn())
    assert not set(five) & set(drawn(count=5, seed=1)), "another seed is other noise, so another unit"


def test_every_source_comes_once_before_any_comes_again() -> None:
    folder = Path("x")
    sources = [sample(folder, f"s{k}", source_sha256=str(k)) for k in range(50)]
    # the last ten have one character to drive and the others eleven
    allowed = allowed_pairs(sources, sources[:12], False)
    allowed = np.concatenate([allowed[allowed[:, 0] < 40], [[k, 0] for k in range(40, 50)]])
    found = in_turn(allowed, 0)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, allowed.tolist())), "each pair once"
    assert len(set(found[:50, 0])) == 50 and set(found[50:90, 0]) == set(range(40)) == set(found[90:130, 0])
    assert found[:50, 0].tolist() != found[50:100, 0].tolist() and len(set(found[:50, 1].tolist())) > 8, "at random"
    assert not np.array_equal(found, in_turn(allowed, 1)) and np.array_equal(found, in_turn(allowed, 0))


def test_an_id_is_of_all_that_shapes_the_result(tmp_path: Path, samples: list[Sample]) -> None:
    def first() -> str:
        return plan_units(config(tmp_path, same_kind=False), samples, samples, TEACHING)[0].id

    found = [first()]
    samples[0].poses.write_text("another motion")
    found.append(first())
    samples[1].target_video.write_text("another character")
    found.append(first())
    samples[1].poses.unlink()
    found.append(first())
    samples[0] = samples[0].model_copy(update={"motion": "jumps"})
    found.append(first())
    found.append(plan_units(config(tmp_path, same_kind=False), samples, samples, Teaching("b", TEACHING.needs, 16))[0].id)
    assert len(set(found)) == len(found)
    samples[0].target_video.write_text("a source's own pixels are not shown to this teacher")
    assert first() in found


def test_what_a_character_is_told() -> None:
    folder = Path("x")
    source = sample(folder, "a", caption="a man waves", motion="waves slowly", appearance="a man")
    assert prompt_for(source, sample(folder, "b", "bird")) == "a bird waves slowly"
    assert prompt_for(source, sample(folder, "b", appearance="")) == "a man waves"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "e2e", "driving_video": "x.mkv"}, "is of kind e2e, expected pose"),
        ({"poses": None}, "has no poses"),
        ({"fps": 24.0}, "has 24 fps, expected clip.fps, 12"),
        ({"frames": 12}, "got 12 frames, expected 4n"),
        ({"width": 40}, "is 40x48, expected sides that 16 divides"),
    ],
)
def test_a_source_that_cannot_be_used(tmp_path: Path, samples: list[Sample], values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_units(config(tmp_path), [sample(tmp_path, "odd", **values)], samples, TEACHING)


def test_nothing_to_make(tmp_path: Path, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match=r"nothing to make.*of one body family"):
        plan_units(config(tmp_path, same_kind=True), samples[:1], samples[2:], TEACHING)
    with pytest.raises(UserError, match=r"nothing to make: 0 sources"):
        plan_units(config(tmp_path, same_kind=False), [], samples, TEACHING)
    with pytest.raises(UserError, match=r"count is 13, but .* 12 pairs"):
        plan_units(config(tmp_path, same_kind=False, count=13), samples, samples, TEACHING)
    still = [sample(tmp_path, "still", poses=None)]
    with pytest.raises(UserError, match=r"still has neither reference_poses nor poses.*retarget: false"):
        plan_units(config(tmp_path, same_kind=False), samples, still, TEACHING)
    with pytest.raises(UserError, match="there is no manifest"):
        manifests(config(tmp_path / "empty"))


def test_packages_are_of_one_shape_and_do_not_change_with_what_is_finished(tmp_path: Path, samples: list[Sample]) -> None:
    samples[1] = samples[1].model_copy(update={"frames": 17})
    units = plan_units(config(tmp_path, same_kind=False), samples, samples, TEACHING)
    every = packages(units, 4)
    assert sorted(len(package.units) for package in every) == [1, 3, 4, 4]
    assert all(len({unit.shape for unit in package.units}) == 1 for package in every)
    assert sorted(unit.id for package in every for unit in package.units) == sorted(unit.id for unit in units)
    finished = {units[0].id, *(unit.id for unit in every[1].units)}
    left = missing(every, finished)
    assert [package.units for package in left] == [every[0].units, *(package.units for package in every[2:])]
    assert left[0].wanted == {unit.id for unit in every[0].units} - finished


def test_a_plan_of_the_papers_size_is_made_at_once() -> None:
    folder = Path("x")
    sources = [sample(folder, f"s{k}", source_sha256=str(k)) for k in range(2000)]
    found = allowed_pairs(sources, sources[:200], False)
    assert found.shape == (2000 * 200 - 200, 2) and not np.equal(found[:, 0], found[:, 1]).any()
