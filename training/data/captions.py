"""Captions of clips: from files, from keypoints, or by the services of Text Fusion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dreamactor_core.poses import PoseFormatError, PoseSequence
from dreamactor_core.text.address import host_of
from dreamactor_core.text.ask import Asker
from dreamactor_core.text.budget import SECONDS, Budget, encode, shrink
from dreamactor_core.text.cache import AnswerCache
from dreamactor_core.text.describe import describe_motion
from dreamactor_core.text.errors import BadAnswerError, RefusedError, TextError
from dreamactor_core.text.fusion import Texts, Writer, make_texts
from dreamactor_core.text.keys import find_key, where_to_put
from dreamactor_core.text.prompts import load_prompts
from dreamactor_core.text.services import SERVICES
from training.config import Data
from training.data.dropping import Drop
from training.errors import UserError


@dataclass
class Shown:
    """What of a clip a service is shown; it is collected while the clip passes by.

    Attributes:
        lead_in: Frames in which nothing drives yet: the motion text is of what comes after, as at inference.
        first: The first frame, small; the reference. `moving`: frames of the first seconds that drive.
    """

    fps: float
    lead_in: int
    budget: Budget = field(default_factory=Budget)
    first: np.ndarray | None = None
    moving: list[np.ndarray] = field(default_factory=list)

    def see(self, index: int, picture: np.ndarray) -> None:
        """Frame `index` of the clip, RGB uint8 (H, W, 3)."""
        if index == 0:
            self.first = shrink(picture, self.budget).copy()
        seconds = (index - self.lead_in) / self.fps
        if len(self.moving) < self.budget.frames and len(self.moving) / self.budget.fps <= seconds + 1e-6 < SECONDS:
            self.moving.append(shrink(picture, self.budget).copy())


def writer(data: Data, kept: Path) -> Writer:
    """Whoever writes texts. Raises UserError when service, model, address or key are not as they should be.

    Args:
        kept: Folder of answers, so that nothing is asked twice.
    """
    try:
        asker = Asker(data.service, data.model, data.base_url)
        if find_key(asker.address, None) is None and host_of(asker.address) == host_of(SERVICES[data.service].base_url):
            raise TextError(f"there is no key for {host_of(asker.address)}: {where_to_put(asker.address, None)}")
        return Writer(asker, load_prompts("en"), AnswerCache(kept))
    except (TextError, ValueError) as error:
        raise UserError(f"data.captions is service: {error}") from error


def ask(write: Writer, shown: Shown, motion: str = "") -> Texts:
    """Motion, appearance and fused text of a clip.

    Args:
        motion: Taken instead of asking.

    Raises:
        Drop: the answer does not keep to the form, or the model will not describe the clip.
        UserError: the service is not there or takes no more.
    """
    budget = shown.budget
    try:
        return make_texts(
            "fused",
            Texts(motion=motion),
            lambda: write.motion(encode(shown.moving, budget), budget),
            lambda: write.appearance(encode([shown.first], budget)[0]),
            write.fuse,
        )
    except (BadAnswerError, RefusedError) as error:
        raise Drop("bad_text", str(error)) from error
    except TextError as error:
        raise UserError(f"{error}; give the same command again when it is there: what is finished is kept") from error


def describe(poses: PoseSequence, fps: float, lead_in: int) -> Texts:
    """The motion of what drives, told by keypoints. Raises Drop when nobody is seen in it."""
    try:
        motion = describe_motion(poses[lead_in:], fps)
    except PoseFormatError as error:
        raise Drop("nobody", str(error)) from error
    return Texts(fused=motion, motion=motion)


def read_caption(path: Path) -> str:
    """A caption out of a text file. Raises Drop when there is none."""
    try:
        text = " ".join(path.read_text("utf-8-sig").split())
    except FileNotFoundError:
        raise Drop("no_caption", f"there is no {path.name}, expected a text; or set data.captions to another way") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Drop("no_caption", f"{path.name} cannot be read as UTF-8 ({error}); save it again") from error
    if not text:
        raise Drop("no_caption", f"{path.name} is empty, expected a text")
    return text
