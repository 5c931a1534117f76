"""Which hand is which: by the wrist that it is at, whatever the writer called it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .augment import RIDERS
from .poses import Person, PoseSequence

_LEFT, _RIGHT = RIDERS["left_hand"], RIDERS["right_hand"]  # the wrists


def _crossed(people: Sequence[Person]) -> bool:
    """Whether one person's hands are, over the clip, nearer to the other wrist than to their own."""
    crossed = 0.0
    for person in people:
        wrists = person.body[[_LEFT, _RIGHT]].astype(np.float64)
        for hand, own, other in ((person.left_hand, 0, 1), (person.right_hand, 1, 0)):
            sure = min(float(hand[0, 2]), *wrists[:, 2].tolist())
            if sure > 0:
                to_own, to_other = (np.linalg.norm(hand[0, :2] - wrists[side, :2]) for side in (own, other))
                # hands that meet tell little, and weigh little
                crossed += sure * float(to_own - to_other)
    return crossed > 0


def with_own_hands(sequence: PoseSequence) -> PoseSequence:
    """The sequence with each hand on the side whose wrist it is at.

    The host's SDPose writes the left hand as the right one and the other way round; whoever scales a hand about its wrist,
    or tells the back from the palm, must know. It is decided once for each person and clip, so hands that cross stay whose
    they are. Person k must be the same in every frame.
    """
    most = max((len(people) for people in sequence.frames), default=0)
    crossed = [_crossed([people[who] for people in sequence.frames if who < len(people)]) for who in range(most)]
    if not any(crossed):
        return sequence
    frames = [
        [Person(p.body, p.face, p.right_hand, p.left_hand) if crossed[who] else p for who, p in enumerate(people)]
        for people in sequence.frames
    ]
    return replace(sequence, frames=frames)
