"""Whether an answer keeps to the form: a list of what is wrong with it, in words that the model is told again."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from .lexicon import LEXICONS, Words
from .prompts import Language

Kind = Literal["human", "bird", "quadruped"]

OPENING = {"en": "In the video, the character's initial pose is", "zh": "视频中\uff0c角色的初始姿势是"}
"""First words of a motion text."""

CONNECTIVES = {
    "en": ("Subsequently,", "Then,", "After that,", "Finally,"),
    "zh": ("随后\uff0c", "接着\uff0c", "之后\uff0c", "最后\uff0c"),
}
"""First words of its further steps, in order."""

FUSED_OPENING = {"en": ("In the video, a", "In the video, an"), "zh": ("视频中\uff0c一",)}
"""First words of a fused text; in English a whole word."""

_SAME = str.maketrans("\u2019\u201c\u201d\uff0c\uff1b\uff1a\uff01\uff1f", '\'"",;:!?')
"""Typographic marks to plain ones: both are right."""
_CLAUSE_ENDS = {"en": ".;,!?", "zh": "。;,!?、"}
_SENTENCE_ENDS = {"en": ".!?\"')", "zh": "。!?"}


def _plain(text: str) -> str:
    return text.strip().translate(_SAME)


def tidy(answer: str) -> str:
    """The answer without what some models put around it: blanks, and the reasoning of those that think aloud.

    Some have the opening tag in their prompt, and end what they think with a tag that was never opened; of those that are
    cut off while they think, nothing is left.
    """
    return re.sub(r"^.*</think>|^\s*<think>.*", "", answer, flags=re.DOTALL).strip()


@lru_cache(maxsize=64)
def _pattern(words: Words, language: Language) -> re.Pattern[str]:
    if language == "zh":
        return re.compile("|".join(re.escape(_plain(w)) for w in sorted(words, key=len, reverse=True)), re.IGNORECASE)
    # a word of a compound ("second-hand", "cat-eye") is another word; "t-shirt" and the like are listed whole
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])", re.IGNORECASE)


def _find(text: str, words: Words, language: Language) -> list[re.Match[str]]:
    """Where the words stand, less those that are a part of something harmless."""
    if not words:
        return []
    harmless = [m.span() for m in _pattern(LEXICONS[language].harmless, language).finditer(text)]
    return [
        found
        for found in _pattern(words, language).finditer(text)
        if not any(a <= found.start() and found.end() <= b and (a, b) != found.span() for a, b in harmless)
    ]


def _listed(found: list[str]) -> str:
    return ", ".join(f'"{word}"' for word in dict.fromkeys(word.lower() for word in found))


def _form(text: str, language: Language) -> list[str]:
    if not text.strip():
        return ["it is empty"]
    problems = []
    if re.search(r"[\r\n\u2028\u2029]", text.strip()):
        problems.append("it must be one paragraph without line breaks")
    han, latin = len(re.findall(r"[\u4e00-\u9fff]", text)), len(re.findall(r"[A-Za-z]", text))
    if language == "en" and han > latin:
        problems.append("it must be in English")
    if language == "zh" and han * 2 < latin:
        problems.append("it must be in Chinese")
    return problems


def _order(text: str, language: Language) -> list[str]:
    place = len(OPENING[language])
    missing = []
    for connective in CONNECTIVES[language]:
        ends = re.escape(_SENTENCE_ENDS[language])
        found = re.compile(rf"(?<=[{ends}])\s*{re.escape(_plain(connective))}").search(text, place)
        if found is None:
            missing.append(f'"{connective}"')
        else:
            place = found.end()
    if not missing:
        return []
    wanted = ", ".join(f'"{connective}"' for connective in CONNECTIVES[language])
    return [f"there is no sentence that begins with {', '.join(missing)} in its place; the order is {wanted}"]


def _is_used(text: str, thing: re.Match[str], language: Language) -> bool:
    """Whether the motion needs the thing: it is touched, or says where a limb is or goes. Else it is a matter of looks."""
    lexicon, ends = LEXICONS[language], f"[{re.escape(_CLAUSE_ENDS[language])}]"
    before, after = re.split(ends, text[: thing.start()])[-1], re.split(ends, text[thing.end() :])[0]
    worn = _find(before, lexicon.worn, language)
    if worn and not _find(worn[-1][0], lexicon.contact, language):
        return False
    return bool(
        _find(before, lexicon.contact, language)
        or _find(before, lexicon.places, language)
        or _find(f"{before}{thing[0]}{after}", lexicon.hands, language)
    )


def check_motion(answer: str, language: Language = "en") -> list[str]:
    """What is wrong with a motion text: one paragraph, its opening, the order of its steps, no looks. Empty when right."""
    text = _plain(answer)
    problems = _form(text, language)
    if not text:
        return problems
    if not text.startswith(_plain(OPENING[language])):
        problems.append(f'it must begin with the words "{OPENING[language]}"')
    problems += _order(text, language)
    lexicon = LEXICONS[language]
    found = [m[0] for m in _find(text, lexicon.looks, language)]
    found += [m[0] for m in _find(text, lexicon.things, language) if not _is_used(text, m, language)]
    if found:
        problems.append(f"it must not speak of looks or gender: {_listed(found)}")
    return problems


def _is_the_character_s(text: str, verb: re.Match[str], language: Language) -> bool:
    """Whether the character does it, and not something on it: hair stands up, glasses sit on a nose."""
    lexicon = LEXICONS[language]
    before = re.sub(r"\w+'s?\b", "", text[: verb.start()])  # what is the character's is not the character
    clause = re.split(r"[.;:,!?]|\b(?:and|whose|where|while)\b", before)[-1]
    # without a subject, or in the first clause, of which the character is the subject, unless it says otherwise
    own = not clause.strip() or clause == before
    if relative := re.search(r"([\w-]+),? (?:that|which) (?:\w+ly |also |always |all |both |each )?$", before):
        clause, own = relative[1], False
    named = _naming(text, language).split()[-1:]
    subjects = (*lexicon.pronouns, *lexicon.humans, *lexicon.birds, *lexicon.quadrupeds, *map(re.escape, named))
    return own or bool(_find(clause, subjects, language))


def check_appearance(answer: str, language: Language = "en") -> list[str]:
    """What is wrong with an appearance text: one paragraph, no action or posture. Empty when right."""
    text = _plain(answer)
    problems = _form(text, language)
    lexicon = LEXICONS[language]
    found = [m[0] for m in _find(text, lexicon.poses, language)]
    found += [m[0] for m in _find(text, lexicon.stands, language) if _is_the_character_s(text, m, language)]
    if found:
        problems.append(f"it must not speak of action, posture or expression: {_listed(found)}")
    return problems


def _naming(text: str, language: Language) -> str:
    """The first words of a description, which say what the character is."""
    return _until(LEXICONS[language].subject_ends, re.split(r"[.;]", text)[0], language)


def _until(ends: Words, text: str, language: Language) -> str:
    """The text up to the first of the words that does not begin it."""
    return text[: min((m.start() for m in _pattern(ends, language).finditer(text) if m.start()), default=len(text))]


def _animal(name: str, language: Language) -> Kind | None:
    """The animal that the first noun phrase names with its last word: a lion, but not a lion tamer."""
    lexicon = LEXICONS[language]
    animals: tuple[tuple[Kind, Words], ...] = (("bird", lexicon.birds), ("quadruped", lexicon.quadrupeds))
    last = re.compile(rf"(?:\s*(?:{'|'.join(lexicon.head_tails)}))*\s*(?:$|[(\[:!?\u2013\u2014\uff08-])", re.IGNORECASE)
    # what stands before the comma may be adjectives; the first part that knows of an animal decides
    for part in _until(lexicon.phrase_ends, name, language).split(","):
        found = [(kind, part[m.end() :]) for kind, words in animals for m in _find(part, words, language)]
        if found:
            return next((kind for kind, rest in found if last.match(rest)), None)
    return None


def kind_of(appearance: str, language: Language = "en") -> Kind | None:
    """What the character is, by the first words of its description; None where they do not tell.

    Nor do they where an animal is a toy, a mascot or a drawing, or only says what a person does: such may have hands.
    """
    name, lexicon = _naming(_plain(appearance), language), LEXICONS[language]
    if _find(name, lexicon.humans, language):
        return "human"
    if _find(name, lexicon.pretended, language):
        return None
    return _animal(name, language)


def check_fusion(answer: str, appearance: str, language: Language = "en") -> list[str]:
    """What is wrong with a fused text: one paragraph, its opening, the limbs of birds and quadrupeds. Empty when right."""
    text = _plain(answer)
    problems = _form(text, language)
    if not text:
        return problems
    whole = r"\b" if language == "en" else ""
    if not any(re.match(re.escape(_plain(words)) + whole, text) for words in FUSED_OPENING[language]):
        problems.append(f'it must begin with the words "{FUSED_OPENING[language][0]}" and the character')
    kind = kind_of(appearance, language)
    if kind in ("bird", "quadruped"):
        found = [m[0] for m in _find(text, LEXICONS[language].limbs, language)]
        if found:
            instead = "wings and claws" if kind == "bird" else "forelegs, hind legs and paws"
            problems.append(f"the character is a {kind}: it has {instead}, and not what is called {_listed(found)}")
    return problems
