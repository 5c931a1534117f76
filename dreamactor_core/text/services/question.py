"""What a model is asked."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Question:
    """A prompt with pictures, and what was said after it.

    Attributes:
        images: JPEG files in order.
        exchanges: Earlier answers, each with what was replied to it.
    """

    prompt: str
    images: tuple[bytes, ...] = ()
    exchanges: tuple[tuple[str, str], ...] = ()

    def followed_by(self, answer: str, reply: str) -> Question:
        """The question with an answer and a reply to it."""
        return replace(self, exchanges=(*self.exchanges, (answer, reply)))


def base64_of(image: bytes) -> str:
    """As it stands in JSON."""
    return base64.b64encode(image).decode("ascii")
