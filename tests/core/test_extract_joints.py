"""Every joint of the networks' layouts lands on OpenPose's joint of the same name, or nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from dreamactor_core.extract.joints import JOINTS, READERS, from_ap10k, from_coco_wholebody
from dreamactor_core.poses import PoseSequence, from_pose_keypoint, to_pose_keypoint

OPENPOSE = (
    "nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist", "r_hip", "r_knee", "r_ankle",
    "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye", "r_ear", "l_ear",
)  # fmt: skip
COCO = (
    "nose", "l_eye", "r_eye", "l_ear", "r_ear", "l_shoulder", "r_shoulder", "l_elbow", "r_elbow", "l_wrist", "r_wrist",
    "l_hip", "r_hip", "l_knee", "r_knee", "l_ankle", "r_ankle",
)  # fmt: skip
AP10K = (
    "l_eye", "r_eye", "nose", "neck", "tail", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
    "l_hip", "l_knee", "l_ankle", "r_hip", "r_knee", "r_ankle",
)  # fmt: skip
"""Fore paws are called wrists and hind paws ankles here."""


def points(count: int) -> np.ndarray:
    """Joint i at (10 + i, 500 - i), as sure as 0.5 + i / 1000."""
    i = np.arange(count)
    return np.stack([10 + i, 500 - i, 0.5 + i / 1000], 1).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in OPENPOSE if name != "neck"])
def test_coco_s_body(name: str) -> None:
    given = points(133)
    found = from_coco_wholebody(given).body[OPENPOSE.index(name)]
    np.testing.assert_array_equal(found, given[COCO.index(name)])


def test_the_neck_is_between_the_shoulders() -> None:
    given = points(133)
    given[5], given[6] = (100, 50, 0.9), (140, 70, 0.6)
    np.testing.assert_allclose(from_coco_wholebody(given).body[1], (120, 60, 0.6))
    given[6, 2] = 0.2
    assert from_coco_wholebody(given, 0.2).body[1, 2] == pytest.approx(0.2)
    assert not from_coco_wholebody(given, 0.3).body[1].any(), "one shoulder is not enough"


def test_coco_s_face_and_hands() -> None:
    given = points(133)
    person = from_coco_wholebody(given)
    np.testing.assert_array_equal(person.face[:68], given[23:91])
    np.testing.assert_array_equal(person.face[68:], given[[2, 1]], "the right eye comes first")
    np.testing.assert_array_equal(person.left_hand, given[91:112])
    np.testing.assert_array_equal(person.right_hand, given[112:133])


def test_eyes_alone_are_no_face() -> None:
    given = points(133)
    given[23:91, 2] = 0.1
    person = from_coco_wholebody(given, 0.3)
    assert not person.face.any()
    assert person.body[[14, 15], 2].all()


@pytest.mark.parametrize("name", [name for name in AP10K if name != "tail"])
def test_ap10k_s_joints(name: str) -> None:
    given = points(17)
    np.testing.assert_array_equal(from_ap10k(given).body[OPENPOSE.index(name)], given[AP10K.index(name)])


def test_what_animals_have_no_counterpart_of() -> None:
    given = points(17)
    person = from_ap10k(given)
    assert not person.body[[16, 17]].any(), "ears"
    tail = given[AP10K.index("tail")]
    assert not any((points == tail).all(1).any() for points in person.groups().values())
    assert not any(person.groups()[group].any() for group in ("face", "left_hand", "right_hand"))


@pytest.mark.parametrize("layout", sorted(READERS))
def test_what_is_not_sure_enough_is_not_seen(layout: str) -> None:
    given = points(JOINTS[layout])
    assert not READERS[layout](given, 0.9).seen
    given[:, 2] = 0
    assert not READERS[layout](given, 0.0).seen
    given = points(JOINTS[layout])
    given[0] = (10, 10, 0.3)
    assert READERS[layout](given, 0.3).seen, "the least confidence itself is enough"


@pytest.mark.parametrize("layout", sorted(READERS))
def test_it_goes_through_pose_keypoint_unchanged(layout: str) -> None:
    person = READERS[layout](points(JOINTS[layout]), 0.0)
    (again,) = from_pose_keypoint(to_pose_keypoint(PoseSequence([[person]], 600, 400))).frames[0]
    for name, group in person.groups().items():
        np.testing.assert_array_equal(again.groups()[name], group)
