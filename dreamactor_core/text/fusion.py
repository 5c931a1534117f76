"""Motion text, appearance text, and the fusion of both: asked for, checked, repaired once, kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from .ask import Asker
from .budget import Budget
from .cache import AnswerCache, fingerprint
from .checks import check_appearance, check_fusion, check_motion, tidy
from .errors import BadAnswerError, TextError
from .prompts import Language, Prompts, frames_in_words
from .services import Question

Mode = Literal["none", "concatenated", "fused"]
"""The paper's ablation: no text, both texts one after the other, both made one by a model."""
OnBadAnswer = Literal["error", "warn"]
MODES: tuple[Mode, ...] = get_args(Mode)
ON_BAD_ANSWER: tuple[OnBadAnswer, ...] = get_args(OnBadAnswer)


@dataclass(frozen=True)
class Texts:
    """What the user gave, or what came out. Empty: nothing."""

    fused: str = ""
    motion: str = ""
    appearance: str = ""


@dataclass
class Writer:
    """Writes texts with a model.

    Attributes:
        warnings: What is wrong with texts that were taken all the same.
        report: Told what is being done.
    """

    asker: Asker
    prompts: Prompts
    cache: AnswerCache
    on_bad_answer: OnBadAnswer = "error"
    report: Callable[[str], None] = lambda what: None
    warnings: list[str] = field(default_factory=list)

    def motion(self, frames: Sequence[bytes], budget: Budget) -> str:
        """From JPEG frames of the driver."""
        language = self.prompts.language
        prompt = self.prompts.fill("motion", frames=frames_in_words(len(frames), budget.fps, language))
        return self._write("motion text", Question(prompt, tuple(frames)), lambda text: check_motion(text, language))

    def appearance(self, picture: bytes) -> str:
        """From the reference as JPEG."""
        question = Question(self.prompts.fill("appearance"), (picture,))
        return self._write("appearance text", question, lambda text: check_appearance(text, self.prompts.language))

    def fuse(self, motion: str, appearance: str) -> str:
        """Both texts made one."""
        question = Question(self.prompts.fill("fusion", motion=motion, appearance=appearance))
        return self._write("fused prompt", question, lambda text: check_fusion(text, appearance, self.prompts.language))

    def _write(self, what: str, question: Question, check: Callable[[str], list[str]]) -> str:
        asker, version = self.asker, self.prompts.version
        name = fingerprint(
            [asker.service, asker.address, asker.model.strip(), version, what, question.prompt, *question.images]
        )  # fmt: skip
        kept = self.cache.get(name)
        if kept is not None and (not (problems := check(kept)) or self.on_bad_answer == "warn"):
            self._warn(what, problems)
            return kept
        self.report(f"asking {asker.model.strip()} for the {what}")
        answer = asker.ask(question)
        text = tidy(answer)
        problems = check(text)
        if problems:
            self.report(f"asking {asker.model.strip()} to repair the {what}")
            listed = "\n".join(f"- {problem}" for problem in problems)
            # services refuse a conversation in which somebody says nothing
            repaired = tidy(asker.ask(question.followed_by(text or answer, self.prompts.fill("repair", problems=listed))))
            left = check(repaired)
            if len(left) <= len(problems):
                text, problems = repaired, left
        if problems and self.on_bad_answer == "error":
            raise BadAnswerError(
                f"the {what} of {asker.model.strip()} does not keep to the form, after a request to repair it too: "
                f"{'; '.join(problems)}. Run again, use another model, or set on_bad_answer to warn. The text: {text}"
            )
        self._warn(what, problems)
        self.cache.put(name, text, what=what, service=asker.service, model=asker.model.strip(), prompt_version=version)
        return text

    def _warn(self, what: str, problems: list[str]) -> None:
        if problems:
            self.warnings.append(f"The {what} does not keep to the form: {'; '.join(problems)}.")


def check_given(mode: Mode, given: Texts, language: Language, on_bad_answer: OnBadAnswer) -> list[str]:
    """Warnings about texts of another node: the answers of a local model, or the user's own.

    Nobody can be asked to repair them. Without text (`none`) they are not used; a prompt that is to stand for a concatenation
    need not have the form of a fusion. Beside a prompt that is given, the other two are for reading only: they are warned of.

    Raises:
        BadAnswerError: a text that the prompt is made of does not keep to the form, and `on_bad_answer` is `error`.
    """
    if mode == "none":
        return []
    checked = [
        ("motion_text", given.motion, check_motion(given.motion, language)),
        ("appearance_text", given.appearance, check_appearance(given.appearance, language)),
    ]
    if mode == "fused":
        checked.append(("fused_prompt", given.fused, check_fusion(given.fused, given.appearance, language)))
    bad = [(what, text, wrong) for what, text, wrong in checked if text and wrong]
    warnings = [f"The given {what} does not keep to the form: {'; '.join(wrong)}." for what, _, wrong in bad]
    used = [number for number, (what, _, _) in enumerate(bad) if what == "fused_prompt" or not given.fused]
    if used and on_bad_answer == "error":
        texts = "\n".join(f"The {bad[number][0]}: {bad[number][1]}" for number in used)
        raise BadAnswerError(
            f"{' '.join(warnings[number] for number in used)} Correct it, generate it with another model, or set on_bad_answer to "
            f"warn, which takes it as it is. {texts}"
        )
    return warnings


def check_connected(mode: Mode, connected: Mapping[str, str | None], makeable: Collection[str]) -> list[str]:
    """Warnings about texts that are connected but empty, and are made as if they were not connected.

    Args:
        connected: The texts by the names of their inputs; None: not connected.
        makeable: Names of those that can be made, or done without.

    Raises:
        TextError: such a text is needed and cannot be made.
    """
    if mode == "none" or (connected.get("fused_prompt") or "").strip():
        return []
    warnings = []
    for name in (name for name, text in connected.items() if text is not None and not text.strip()):
        trouble = f"{name} is connected but empty"
        advice = "look at the node that made it (Generate Text: max_length, model)"
        if name not in makeable:
            raise TextError(f"{trouble}, expected a text; {advice}")
        warnings.append(f"{trouble}, and taken as not connected; if it should hold a text, {advice}.")
    return warnings


def make_texts(
    mode: Mode,
    given: Texts,
    motion: Callable[[], str],
    appearance: Callable[[], str],
    fuse: Callable[[str, str], str],
) -> Texts:
    """The three texts. What is given is taken as it is; with a fused text given, nothing is asked.

    Without text (`none`) nothing is asked either, and there is no fused text even where one is given: the network is told
    nothing, whatever else is connected.
    """
    if mode not in MODES:
        raise TextError(f"the mode is {mode!r}, expected one of {', '.join(MODES)}")
    if mode == "none":
        return replace(given, fused="")
    if given.fused:
        return given
    moves = given.motion or motion()
    looks = given.appearance or appearance()
    whole = " ".join(text for text in (looks, moves) if text) if mode == "concatenated" else fuse(moves, looks)
    return Texts(whole, moves, looks)
