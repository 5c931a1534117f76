"""Measuring a reference against a driver."""

from __future__ import annotations

import numpy as np
import pytest
from bodies import broader, marionette

from dreamactor_core.augment import PARENTS
from dreamactor_core.poses import Person
from dreamactor_core.proportions import PARTS, measure


@pytest.mark.parametrize("one_hipped", ["driver", "reference"])
def test_of_a_body_with_one_hip_like_lengths_are_compared(one_hipped: str) -> None:
    """A hip is further from the neck than the middle of both."""
    driver, _, reference = marionette(0, "waves")
    everybody = [people[0] for people in driver.frames]
    broader([*everybody, reference.frames[0][0]], 2.5)
    for person in everybody if one_hipped == "driver" else [reference.frames[0][0]]:
        person.body[11, 2] = 0
    found = measure(everybody, reference.frames[0][0]).scale.bones[8]
    for person in (*everybody, reference.frames[0][0]):
        person.body[11, 2] = 0
    assert found == pytest.approx(measure(everybody, reference.frames[0][0]).scale.bones[8], rel=0.02)


def test_a_little_more_breadth_changes_little() -> None:
    """Whether a body is slim or seen from the side is not decided at once."""
    found = []
    for breadth in np.linspace(1, 5, 81):
        driver, _, reference = marionette(0, "waves")
        broader([people[0] for people in driver.frames], breadth)
        found.append(measure([people[0] for people in driver.frames], reference.frames[0][0]).hips)
    assert np.abs(np.diff(np.log(found))).max() < 0.2
    assert min(found) < 0.5 * found[0]


@pytest.mark.parametrize("how", ["bent", "mistaken"])
def test_a_few_frames_with_both_hips_do_not_tell_the_torsos_length(how: str) -> None:
    driver, _, _ = marionette(0, "waves")
    bodies, reference = [people[0].body for people in driver.frames], driver.frames[0][0]
    other = Person(body=reference.body.copy())
    other.body[[3, 4], :2] += 30  # another pose of the same body
    for t, body in enumerate(bodies):
        if t != 20:
            body[11, 2] = 0
        elif how == "bent":
            body[[8, 11], :2] = body[1, :2] + 0.4 * (body[[8, 11], :2] - body[1, :2])
        else:
            body[11, :2] = body[1, :2] + 0.1
    assert measure([people[0] for people in driver.frames], other).scale.bones[8] == pytest.approx(1, abs=0.05)


def test_every_part_is_measured_once() -> None:
    assert sorted(j for kinds in PARTS.values() for kind in kinds for j in kind) == sorted(PARENTS)
