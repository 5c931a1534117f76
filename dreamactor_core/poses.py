"""Pose sequences, and the POSE_KEYPOINT format they come in and go out as.

POSE_KEYPOINT is a list with one dict per frame: `people` (list of dicts), `canvas_width`, `canvas_height`. A person
has `pose_keypoints_2d` (18 joints), and may have `face_keypoints_2d` (70), `hand_left_keypoints_2d` and
`hand_right_keypoints_2d` (21 each): flat lists of x, y, confidence, or null. Coordinates are pixels of the canvas,
or, in some writers' files, fractions of it; both are read. A frame that says `coordinates`: "pixels", as ours do, is taken at
its word, of others the joints tell. A writer that follows people through the clip gives each their
OpenPose `person_id`, a list of one number, -1 where not known: the place in the list is then taken for the person.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

BODY, FACE, HAND = 18, 70, 21
"""Joints in the body, a face and a hand."""

FARTHEST = 1e6
"""Pixels from the canvas' corner beyond which a coordinate is an estimator's failure, not a joint out of frame."""

_UNIT, _PIXELS = "coordinates", "pixels"
_FRACTION = 2.0  # canvases from its corner up to which a coordinate may be a fraction of it, as joints may lie outside

_GROUPS = {
    "body": ("pose_keypoints_2d", BODY),
    "face": ("face_keypoints_2d", FACE),
    "left_hand": ("hand_left_keypoints_2d", HAND),
    "right_hand": ("hand_right_keypoints_2d", HAND),
}


_MIRRORED = {
    "body": (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16),
    "face": (
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),  # jaw, brows, nose
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,  # eyes
        *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1), 69, 68,  # mouth, pupils
    ),
}  # fmt: skip
"""Joint j of somebody in a mirror is this one of theirs."""


class PoseFormatError(ValueError):
    """POSE_KEYPOINT data that cannot be read."""


def _absent(count: int) -> np.ndarray:
    return np.zeros((count, 3), np.float32)


@dataclass(eq=False)
class Person:
    """One person in one frame: float32 arrays (joints, 3) of x, y in pixels and confidence; 0 means not seen."""

    body: np.ndarray = field(default_factory=lambda: _absent(BODY))
    face: np.ndarray = field(default_factory=lambda: _absent(FACE))
    left_hand: np.ndarray = field(default_factory=lambda: _absent(HAND))
    right_hand: np.ndarray = field(default_factory=lambda: _absent(HAND))

    def groups(self) -> dict[str, np.ndarray]:
        """The four joint arrays by name."""
        return {name: getattr(self, name) for name in _GROUPS}

    @property
    def seen(self) -> bool:
        """Whether any joint was seen."""
        return any(bool((points[:, 2] > 0).any()) for points in self.groups().values())

    def mapped(self, scale: tuple[float, float], offset: tuple[float, float]) -> Person:
        """The person with every seen joint at x * scale + offset; joints that were not seen stay zero."""
        moved = {}
        for name, points in self.groups().items():
            xy = points[:, :2] * np.float64(scale) + np.float64(offset)
            seen = points[:, 2:] > 0
            moved[name] = np.where(seen, np.concatenate([xy, points[:, 2:]], 1), 0).astype(np.float32)
        return Person(**moved)

    def mirrored(self, width: int) -> Person:
        """The person in a mirror, whose left is the own right: x becomes width - x."""
        seen = self.mapped((-1, 1), (width, 0))
        body, face = (getattr(seen, name)[list(order)] for name, order in _MIRRORED.items())
        return Person(body, face, left_hand=seen.right_hand, right_hand=seen.left_hand)


@dataclass(eq=False)
class PoseSequence:
    """People over time: `frames[t]` lists the people of frame t, in pixels of a `height` x `width` canvas.

    Attributes:
        tracked: Whether who made it has followed people, so that person k is the same in every frame.
    """

    frames: list[list[Person]]
    height: int
    width: int
    tracked: bool = False

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Sequence[int] | slice) -> PoseSequence:
        chosen = self.frames[index] if isinstance(index, slice) else [self.frames[i] for i in index]
        return replace(self, frames=chosen)

    def fitted(self, height: int, width: int) -> PoseSequence:
        """The sequence letterboxed onto another canvas: aspect ratio kept, centred."""
        scale = min(width / self.width, height / self.height)
        offset = ((width - self.width * scale) / 2, (height - self.height * scale) / 2)
        frames = [[person.mapped((scale, scale), offset) for person in people] for people in self.frames]
        return PoseSequence(frames, height, width, self.tracked)

    def cropped(self, height: int, width: int) -> PoseSequence:
        """The sequence on another canvas that it covers: aspect ratio kept, what stands out is beyond the canvas.

        In the host's arithmetic for a centre crop, whole pixels of the source at a time: poses lie on a picture that its nodes
        have cropped. Where that would leave nothing of a thin canvas, which the host cannot crop, its middle pixel or two stay.
        """
        own, wanted, x, y = self.width / self.height, width / height, 0, 0
        if own > wanted:
            x = min(round((self.width - self.width * (wanted / own)) / 2), (self.width - 1) // 2)
        else:
            y = min(round((self.height - self.height * (own / wanted)) / 2), (self.height - 1) // 2)
        scale = (width / (self.width - 2 * x), height / (self.height - 2 * y))
        frames = [[p.mapped(scale, (-x * scale[0], -y * scale[1])) for p in people] for people in self.frames]
        return PoseSequence(frames, height, width, self.tracked)

    def mirrored(self) -> PoseSequence:
        """The sequence in a mirror: left and right exchanged, of the picture and of everybody in it."""
        return replace(self, frames=[[person.mirrored(self.width) for person in people] for people in self.frames])

    def without(self, *groups: str) -> PoseSequence:
        """The sequence with whole joint groups ("face", "left_hand" ...) left out."""
        keep = [name for name in _GROUPS if name not in groups]
        frames = [[Person(**{name: getattr(p, name) for name in keep}) for p in people] for people in self.frames]
        return replace(self, frames=frames)


def _read_points(raw: Any, count: int, where: str) -> np.ndarray:
    if raw is None or (isinstance(raw, (list, tuple)) and not raw):
        return _absent(count)
    if not isinstance(raw, (list, tuple, np.ndarray)):
        raise PoseFormatError(f"{where}: got {type(raw).__name__}, expected a flat list of x, y, confidence")
    if len(raw) != 3 * count:
        raise PoseFormatError(
            f"{where}: got {len(raw)} numbers, expected {3 * count} ({count} joints of x, y, confidence); "
            f"COCO-17, OpenPose-25 and other layouts must be converted to OpenPose-18 first"
        )
    flat = [0.0 if value is None else value for value in raw]
    if not all(issubclass(kind, (Real, np.floating)) for kind in set(map(type, flat))):  # each of a clip's numbers takes long
        raise PoseFormatError(f"{where}: holds something that is not a number; expected numbers or null")
    try:
        points = np.array(flat, np.float64).reshape(count, 3)
    except OverflowError as error:
        raise PoseFormatError(f"{where}: holds a whole number of hundreds of digits, expected pixels and confidences") from error
    broken = ~(np.abs(points) <= FARTHEST).all(1)  # NaN too
    unseen = np.array([raw[3 * i] is None or raw[3 * i + 1] is None for i in range(count)])
    points[broken | unseen | (points[:, 2] < np.finfo(np.float32).tiny)] = 0
    return points.astype(np.float32)


def _id_of(raw: dict[str, Any]) -> int | None:
    """Which person a writer takes somebody for, None where it does not say."""
    given = raw.get("person_id")
    if isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]
    return int(given) if isinstance(given, Integral) and not isinstance(given, bool) and given >= 0 else None


def _is_tracked(ids: list[list[int | None]]) -> bool:
    """Whether the ids of each frame's people say that everybody has one place in the list, which is nobody else's."""
    pairs = {(place, who) for row in ids for place, who in enumerate(row)}
    places, people = zip(*pairs, strict=True) if pairs else ((), ())
    return bool(pairs) and None not in people and len(set(places)) == len(set(people)) == len(pairs)


def _are_fractions(frames: list[list[Person]]) -> bool:
    """Whether most of what is seen, by its confidence, is nearer to the corner than any but the smallest pixels are.

    Most of it, for an estimator may throw a single joint anywhere. One in the very corner is there in either unit.
    """
    groups = [points for people in frames for person in people for points in person.groups().values()]
    everything = np.concatenate([_absent(0), *groups]).astype(np.float64)
    told = everything[(everything[:, 2] > 0) & everything[:, :2].any(1)]
    near, sure = np.abs(told[:, :2]).max(1) < _FRACTION, np.minimum(told[:, 2], 1)
    return bool(sure[near].sum() > sure[~near].sum())


def _in_pixels(person: Person, width: int, height: int) -> Person:
    scaled = person.mapped((width, height), (0, 0))
    for points in scaled.groups().values():
        points[(np.abs(points[:, :2]) > FARTHEST).any(1)] = 0
    return scaled


def from_pose_keypoint(data: Any) -> PoseSequence:
    """Read POSE_KEYPOINT frames.

    Frames in fractions of the canvas (most of what is seen has coordinates below 2, on a canvas larger than 4 pixels, and they do
    not say that they are in pixels) are turned into pixels. A frame without people is kept, empty. Joints that are null, NaN,
    farther away than FARTHEST or of confidence 0 are not seen. People are tracked where `person_id` says so of everybody: one
    place for each of them.

    Raises:
        PoseFormatError: naming the frame, the person and the field, what was got and what was expected.
    """
    if isinstance(data, dict) and "people" in data:
        data = [data]
    if not isinstance(data, (list, tuple)):
        raise PoseFormatError(f"POSE_KEYPOINT: got {type(data).__name__}, expected a list with one dict per frame")
    if not data:
        raise PoseFormatError("POSE_KEYPOINT: got zero frames, expected at least one")
    frames: list[list[Person]] = []
    ids: list[list[int | None]] = []
    in_pixels: list[bool] = []
    sizes: set[tuple[int, int]] = set()
    for t, frame in enumerate(data):
        if not isinstance(frame, dict) or "people" not in frame:
            raise PoseFormatError(f"frame {t}: expected a dict with the keys people, canvas_width, canvas_height")
        try:
            width, height = int(frame["canvas_width"]), int(frame["canvas_height"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise PoseFormatError(f"frame {t}: canvas_width and canvas_height must be whole numbers") from error
        if max(abs(width), abs(height)) > FARTHEST:
            raise PoseFormatError(f"frame {t}: the canvas is beyond {FARTHEST:.0f} pixels a side; expected the picture's size")
        if width < 1 or height < 1:
            raise PoseFormatError(f"frame {t}: the canvas is {width}x{height}; both sides must be positive")
        sizes.add((width, height))
        listed = [] if frame["people"] is None else frame["people"]
        if not isinstance(listed, (list, tuple)):
            raise PoseFormatError(f"frame {t}: people is {type(listed).__name__}, expected a list of dicts of joints")
        people = []
        for k, raw in enumerate(listed):
            if not isinstance(raw, dict):
                raise PoseFormatError(f"frame {t}, person {k}: got {type(raw).__name__}, expected a dict")
            groups = {
                name: _read_points(raw.get(key), count, f"frame {t}, person {k}, {key}")
                for name, (key, count) in _GROUPS.items()
            }
            people.append(Person(**groups))
        frames.append(people)
        ids.append([_id_of(raw) for raw in listed])
        unit = frame.get(_UNIT)
        in_pixels.append(isinstance(unit, str) and unit == _PIXELS)
    if len(sizes) > 1:
        raise PoseFormatError(f"frames have {len(sizes)} different canvas sizes {sorted(sizes)}; expected one")
    width, height = sizes.pop()
    if min(width, height) > 4 and _are_fractions([people for people, sure in zip(frames, in_pixels, strict=True) if not sure]):
        frames = [
            people if sure else [_in_pixels(person, width, height) for person in people]
            for people, sure in zip(frames, in_pixels, strict=True)
        ]
    return PoseSequence(frames, height, width, _is_tracked(ids))


def read_pose_file(path: Path) -> tuple[list[dict[str, Any]], float | None]:
    """POSE_KEYPOINT frames of a JSON file, and their frames per second, None where the file does not say.

    The file holds a list of frames, or an object with `frames` and, if known, `frame_ms` (milliseconds a frame is shown).

    Raises:
        PoseFormatError: naming the file; it cannot be read as JSON, or holds something else.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PoseFormatError(f"{path.name} cannot be read as JSON ({error}); expected a list of POSE_KEYPOINT frames") from error
    fps = None
    if isinstance(data, dict) and "frames" in data:
        shown = data.get("frame_ms")
        if shown is not None:
            if isinstance(shown, bool) or not isinstance(shown, (int, float)) or not shown > 0:  # NaN neither
                raise PoseFormatError(f"{path.name}: frame_ms is {shown!r}, expected a positive number of milliseconds")
            fps = 1000.0 / shown
        data = data["frames"]
    try:
        from_pose_keypoint(data)
    except PoseFormatError as error:
        raise PoseFormatError(f"{path.name}: {error}") from error
    return [data] if isinstance(data, dict) else data, fps


def _written(points: np.ndarray) -> list[float]:
    """x, y, confidence of each joint in turn; of a group that is not seen the same zero, for lists of long clips are large."""
    return points.reshape(-1).tolist() if points[:, 2].any() else [0.0] * points.size


def to_pose_keypoint(sequence: PoseSequence) -> list[dict[str, Any]]:
    """Write POSE_KEYPOINT frames in pixels, which say so; what was not seen is zeros. People who are tracked have a `person_id`.

    DWPose writes null for a face or a hand that is not there, and so may others, but not everybody reads it: the host's SDPose
    Draw Keypoints and controlnet_aux's colouring of faces fail on it. Zeros are read by all, SDPose's nodes and DWPose's.
    """
    frames = []
    for people in sequence.frames:
        written: list[dict[str, Any]] = [
            {key: _written(getattr(person, name)) for name, (key, _) in _GROUPS.items()} for person in people
        ]
        if sequence.tracked:
            written = [{"person_id": [k], **person} for k, person in enumerate(written)]
        frames.append({"people": written, "canvas_width": sequence.width, "canvas_height": sequence.height, _UNIT: _PIXELS})
    return frames


def from_body_joints(joints: np.ndarray, height: int, width: int) -> PoseSequence:
    """One person from an array (T, 18, 3) of x, y in pixels and confidence."""
    frames = [[Person(body=points.astype(np.float32))] for points in joints]
    return PoseSequence(frames, height, width)
