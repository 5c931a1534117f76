"""Grades of Video-Bench's dimensions by a model: asked for, checked, repaired once, kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamactor_core.text.ask import Asker
from dreamactor_core.text.cache import AnswerCache, fingerprint
from dreamactor_core.text.checks import tidy
from dreamactor_core.text.errors import BadAnswerError
from dreamactor_core.text.services import Question
from training.errors import UserError
from training.score import shown

SHIPPED = Path(__file__).with_name("prompts")
_PLACE = {"repair": "{problem}"}


class Prompts:
    """The questions: one text file a dimension, and the request for repair. A file in `folder` takes the place of one that ships.

    Raises:
        UserError: a file cannot be read, or lacks the place that is filled in.
    """

    def __init__(self, dimensions: Sequence[str], folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise UserError(f"score.prompts: there is no folder {folder}, expected one with files such as imaging_quality.txt")
        self.texts: dict[str, str] = {}
        for name in (*dimensions, "repair"):
            path = folder / f"{name}.txt" if folder and (folder / f"{name}.txt").is_file() else SHIPPED / f"{name}.txt"
            try:
                text = path.read_text("utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"the question {path} can't be read ({error}), expected a text file in UTF-8") from error
            place = _PLACE.get(name, "{pictures}")
            if place not in text:
                raise UserError(f"the question {path} has no {place}, expected it once; put it back or delete your copy")
            self.texts[name] = text

    def fill(self, name: str, value: str) -> str:
        """The text with its place filled; its other braces are JSON."""
        return self.texts[name].replace(_PLACE.get(name, "{pictures}"), value)

    def version(self, dimension: str) -> str:
        """Changes whenever the question or the request for repair is edited."""
        return hashlib.sha256(f"{self.texts[dimension]}\0{self.texts['repair']}".encode()).hexdigest()[:16]


def parse(answer: str) -> int:
    """The grade, 1 to 5, in an answer: JSON with a whole number `score`, in a code fence or not, or `Score: n` alone in a line.

    Raises:
        ValueError: what is wrong, in words that the model is told. Never guesses: 4.5, 4/5 and two grades are no answer.
    """
    text = re.sub(r"^```[a-z]*\s*|\s*```$", "", tidy(answer)).strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("it begins like JSON but is not") from None
        score = found.get("score")
        if isinstance(score, bool) or not isinstance(score, int):
            raise ValueError(f"score is {str(score)[:20]!r}, not a whole number")
    else:
        lines = re.findall(r"^\W*score\W*?:[\s*_`]*(.*?)[\s*_`.]*$", text, re.IGNORECASE | re.MULTILINE)
        if len(lines) != 1:
            raise ValueError(f"it holds {len(lines)} lines 'Score: n' and no JSON, where one grade is asked for")
        if not re.fullmatch(r"\d+", lines[0]):
            raise ValueError(f"the score is {lines[0][:20]!r}, not a whole number")
        score = int(lines[0])
    if not 1 <= score <= 5:
        raise ValueError(f"score is {score}, not from 1 to 5")
    return score


@dataclass(frozen=True)
class Grader:
    """Grades clips. May be used from several threads at once.

    Attributes:
        report: Told what is being asked.
    """

    asker: Asker
    prompts: Prompts
    cache: AnswerCache
    report: Callable[[str], None] = lambda what: None

    def identity(self, dimension: str) -> list[str]:
        """What a grade hangs on beside the clip: service, address, model, question, frames shown."""
        asker = self.asker
        return [asker.service, asker.address, asker.model.strip(), dimension, self.prompts.version(dimension), shown.VERSION]

    def grade(self, dimension: str, content: str, clip: Callable[[], tuple[np.ndarray, float, np.ndarray | None]]) -> int:
        """The grade of a clip. What was answered before, to the same question about the same content, is not asked again.

        Args:
            content: Name of what is graded, a hash of the files: clip, rate and reference.
            clip: Frames RGB uint8 (T, H, W, 3), frames per second and the reference (H, W, 3) or None; called if there is need.

        Raises:
            ServiceError: the service is away or refuses.
            BadAnswerError: no grade could be read in the answer, nor after the request to repair it.
        """
        name = fingerprint([*self.identity(dimension), content])
        kept = self.cache.get(name)
        if kept is not None:
            try:
                return parse(kept)
            except ValueError:
                pass  # somebody has edited it
        pictures, told = shown.question_pictures(dimension, *clip())
        question = Question(self.prompts.fill(dimension, told), tuple(pictures))
        self.report(f"asking {self.asker.model.strip()} for {dimension}")
        text = self.asker.ask(question)
        try:
            score = parse(text)
        except ValueError as problem:
            text = self.asker.ask(question.followed_by(text, self.prompts.fill("repair", str(problem))))
            try:
                score = parse(text)
            except ValueError as still:
                raise BadAnswerError(
                    f"no grade for {dimension} can be read in what {self.asker.model.strip()} says, after a request to repair it "
                    f"too: {still}. Run again or use another model. It said: {text[:200]}"
                ) from None
        about = {"what": dimension, "service": self.asker.service, "model": self.asker.model.strip(), "content": content}
        self.cache.put(name, text, prompt_version=self.prompts.version(dimension), **about)
        return score
