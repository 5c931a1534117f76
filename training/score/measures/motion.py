"""Motion agreement of poses that are estimated anew in the synthesized clip."""

from __future__ import annotations

import numpy as np

from dreamactor_core.poses import PoseSequence

from .clip import BONES, Pair, body_size

TOLERANCE = 0.5
"""How far a bone may be from the source's, in lengths of the bone: about 29 degrees for one that lies in the picture."""
TRAVEL = 0.15
"""How far the neck may be from where the source's has gone to, in body heights."""


class PoseMotion:
    """Share of the source's bones that the result has right, in [0, 1]; 1: all of them (a PCK of bones).

    Every bone's vector is taken in lengths of that bone, which is the 95th percentile of its length over the clip: so the
    bodies may be of any size and proportions. A bone is right when it is seen and its vector is within `TOLERANCE` of the
    source's. The neck's way since the first frame, in body heights, counts as one more bone, with `TRAVEL`. What the source
    does not show is not judged. Of several people, the k-th from the left is compared with the k-th.
    """

    name, version, higher_is_better = "motion", 1, True

    def __call__(self, pair: Pair) -> float | None:
        """None without poses of the source, or without an estimator."""
        if pair.poses is None or pair.extract is None:
            return None
        return agreement(pair.poses, pair.extract(pair.result))


def agreement(source: PoseSequence, result: PoseSequence) -> float | None:
    """See `PoseMotion`; None where no bone of the source is seen.

    Raises:
        ValueError: the sequences are of different length.
    """
    if len(source) != len(result):
        raise ValueError(f"got {len(source)} frames of the source and {len(result)} of the result, expected as many")
    people = max(len(frame) for frame in source.frames)
    right = judged = 0
    for k in range(people):
        wanted, found = _bones(source, k), _bones(result, k)
        seen = np.isfinite(wanted).all(-1)
        limits = np.full(wanted.shape[1], TOLERANCE)
        limits[-1] = TRAVEL
        with np.errstate(invalid="ignore"):
            near = np.linalg.norm(wanted - found, axis=-1) <= limits
        right, judged = right + int((near & seen).sum()), judged + int(seen.sum())
    return right / judged if judged else None


def _bones(poses: PoseSequence, k: int) -> np.ndarray:
    """Vectors (T, bones + 1, 2) of one person in their own lengths, and the neck's way in body heights; nan where not seen."""
    joints = np.full((len(poses), 18, 2), np.nan)
    sizes = []
    for t, people in enumerate(poses.frames):
        seen = [person for person in people if (person.body[:, 2] > 0).any()]
        ordered = seen if poses.tracked else sorted(seen, key=lambda one: float(np.mean(one.body[one.body[:, 2] > 0, 0])))
        if k < len(ordered):
            body = ordered[k].body
            joints[t] = np.where(body[:, 2:] > 0, body[:, :2], np.nan)
            sizes.append(body_size([ordered[k]], poses.height))
    size = max(float(np.percentile(sizes, 95)), 1.0) if sizes else 1.0
    vectors = np.stack([joints[:, b] - joints[:, a] for a, b in BONES], 1)
    lengths = np.linalg.norm(vectors, axis=-1)
    seen_once = np.isfinite(lengths).any(0)
    full = np.ones(len(BONES))
    full[seen_once] = np.nanpercentile(lengths[:, seen_once], 95, axis=0)
    vectors = vectors / np.maximum(full, 0.02 * size)[:, None]
    necks = joints[:, 1]
    seen = np.isfinite(necks).all(-1)
    way = (necks - necks[seen][0]) / size if seen.any() else necks
    return np.concatenate([vectors, way[:, None]], 1)
