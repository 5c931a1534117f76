"""The sentences of the keypoint describer, in both languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .checks import CONNECTIVES, OPENING
from .events import Event
from .prompts import Language

Place = tuple[str, str]
ArmState = str | tuple[Place, bool]
"""`hangs`, or the hand's place and whether the elbow is bent."""


class Phrases(Protocol):
    """What the describer needs of a language."""

    unseen: str
    knees_bent: str
    legs_straight: str

    def foot(self, side: str) -> str:
        """A foot above the other one."""

    def head(self, side: str) -> str:
        """A tilted head."""

    def arm(self, side: str, state: ArmState) -> str:
        """How an arm, or `both`, is held."""

    def palm(self, side: str, back: bool) -> str:
        """Which face of a hand is seen."""

    def pose(self, posture: str, clauses: Sequence[str]) -> str:
        """A pose out of its clauses."""

    def movement(self, event: Event) -> str:
        """One movement."""

    def joined(self, movements: Sequence[str]) -> str:
        """The movements of one step."""

    def paragraph(self, poses: Sequence[str], steps: Sequence[Sequence[str]]) -> str:
        """The whole text, of one person or several."""


def _listed(clauses: Sequence[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


_EN_HEIGHT = {
    "above_head": "above the head", "head": "at head height", "shoulder": "at shoulder height", "chest": "at chest height",
    "waist": "at waist height", "hip": "at hip height",
}  # fmt: skip
_EN_SIDE = {
    "out": " out to the side", "middle": " close to the middle of the body", "past_middle": " past the middle of the body",
    "beside": " beside the body",
}  # fmt: skip
_EN_VERBS = {
    "up": {"plus": ("rises", "rise"), "minus": ("comes down", "come down"),
           "plus_back": ("rises and comes down again", "rise and come down again"),
           "minus_back": ("comes down and rises again", "come down and rise again"),
           "swings": ("moves up and down", "move up and down")},
    "out": {"plus": ("swings outwards", "swing outwards"), "minus": ("swings inwards", "swing inwards"),
            "plus_back": ("swings outwards and back in", "swing outwards and back in"),
            "minus_back": ("swings inwards and back out", "swing inwards and back out"),
            "swings": ("swings from side to side", "swing from side to side")},
}  # fmt: skip
_EN_OTHERS = {
    ("knees", "bend"): {
        "plus": "both knees bend and the body sinks", "minus": "both knees straighten and the body rises",
        "plus_back": "both knees bend and straighten again", "minus_back": "both knees straighten and bend again",
        "swings": "both knees bend and straighten several times"},
    ("trunk", "lean"): {
        "plus": "the upper body moves towards its right side", "minus": "the upper body moves towards its left side",
        "plus_back": "the upper body moves towards its right side and back",
        "minus_back": "the upper body moves towards its left side and back",
        "swings": "the upper body sways from side to side"},
    ("head", "tilt"): {
        "plus": "the head moves towards its right side", "minus": "the head moves towards its left side",
        "plus_back": "the head moves towards its right side and back",
        "minus_back": "the head moves towards its left side and back",
        "swings": "the head moves from side to side"},
    ("body", "across"): {
        "plus": "the whole body moves towards the right edge of the picture",
        "minus": "the whole body moves towards the left edge of the picture",
        "plus_back": "the whole body moves towards the right edge of the picture and back",
        "minus_back": "the whole body moves towards the left edge of the picture and back",
        "swings": "the whole body moves to and fro across the picture"},
    ("body", "jump"): {
        "plus": "both feet leave the ground", "minus": "both feet come down to the ground", "plus_back": "the character jumps",
        "minus_back": "both feet come down to the ground and leave it again", "swings": "the character jumps several times"},
    ("figure", "size"): {
        "plus": "the whole body comes nearer", "minus": "the whole body goes away",
        "plus_back": "the whole body comes nearer and goes away again",
        "minus_back": "the whole body goes away and comes nearer again",
        "swings": "the whole body comes nearer and goes away several times"},
}  # fmt: skip
_EN_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class English:
    """Sentences in English."""

    unseen = "the character is not in view"
    knees_bent, legs_straight = "both knees bent", "both legs straight"

    def _place(self, place: Place) -> str:
        height, side = place
        if height == "above_head" and side == "beside":
            return _EN_HEIGHT[height]
        if height == "head" and side == "beside":
            return "beside the head"
        return _EN_HEIGHT[height] + _EN_SIDE[side]

    def foot(self, side: str) -> str:
        return f"the {side} foot lifted"

    def head(self, side: str) -> str:
        return f"the head tilted towards its {side} side"

    def arm(self, side: str, state: ArmState) -> str:
        both = side == "both"
        if isinstance(state, str):
            return "both arms hanging beside the body" if both else f"the {side} arm hanging beside the body"
        place, bent = state
        elbow = (", the elbows bent" if both else ", the elbow bent") if bent else ""
        return f"{'both hands' if both else f'the {side} hand'} {self._place(place)}{elbow}"

    def palm(self, side: str, back: bool) -> str:
        return f"the {'back' if back else 'palm'} of the {side} hand facing the viewer"

    def pose(self, posture: str, clauses: Sequence[str]) -> str:
        stem = {"upright": "upright", "unknown": "partly in view", "right": "leaning towards its right side",
                "left": "leaning towards its left side"}[posture]  # fmt: skip
        return f"{stem}, with {_listed(clauses)}" if clauses else stem

    def movement(self, event: Event) -> str:
        side, _, limb = event.part.partition("_")
        if event.part in ("arms", "legs"):
            side, limb = "both", event.part[:-1]
        if limb not in ("arm", "leg"):
            return _EN_OTHERS[event.part, event.axis][event.kind]
        both = side == "both"
        lifted = event.axis == "lift"
        noun = f"both {'feet' if lifted else f'{limb}s'}" if both else f"the {side} {'foot' if lifted else limb}"
        verb = _EN_VERBS["up" if lifted else event.axis][event.kind][both]
        if event.place is None:
            return f"{noun} {verb}"
        hand = "hands" if both else "hand"
        if event.kind in ("plus", "minus"):
            return f"{noun} {verb} until the {hand} {'are' if both else 'is'} {self._place(event.place)}"
        return f"{noun} {verb}, ending with the {hand} {self._place(event.place)}"

    def joined(self, movements: Sequence[str]) -> str:
        return _listed(movements) if movements else "the pose is held"

    def _named(self, told: Sequence[str]) -> str:
        names = [*_EN_ORDINALS, *(f"number {k}" for k in range(11, len(told) + 1))]
        return "; ".join(f"the {names[k]} character from the left: {text}" for k, text in enumerate(told))

    def paragraph(self, poses: Sequence[str], steps: Sequence[Sequence[str]]) -> str:
        if len(poses) == 1:
            sentences = [f"{OPENING['en']} {poses[0]}."]
            sentences += [f"{word} {text}." for word, text in zip(CONNECTIVES["en"], steps[0], strict=True)]
        else:
            sentences = [f"{OPENING['en']} as follows: {self._named(poses)}."]
            for k, word in enumerate(CONNECTIVES["en"]):
                sentences.append(f"{word} {self._named([told[k] for told in steps])}.")
        return " ".join(sentences)


_ZH_SIDES = {"right": "右", "left": "左", "both": "双"}
_ZH_HEIGHT = {"above_head": "头顶上方", "head": "与头同高处", "shoulder": "与肩同高处", "chest": "胸部高度", "waist": "腰部高度",
           "hip": "髋部高度"}  # fmt: skip
_ZH_SIDE = {"out": "的身体外侧", "middle": "的身体中线附近", "past_middle": "的身体中线另一侧", "beside": "的身体旁边"}
_ZH_VERBS = {
    "up": {"plus": "上抬", "minus": "放下", "plus_back": "上抬后又放下", "minus_back": "放下后又上抬", "swings": "上下摆动"},
    "out": {"plus": "向外摆", "minus": "向内摆", "plus_back": "向外摆后又收回", "minus_back": "向内摆后又向外",
            "swings": "左右摆动"},
}  # fmt: skip
_ZH_OTHERS = {
    ("knees", "bend"): {"plus": "双膝弯曲、身体下沉", "minus": "双膝伸直、身体升起", "plus_back": "双膝弯曲后又伸直",
                        "minus_back": "双膝伸直后又弯曲", "swings": "双膝多次屈伸"},
    ("trunk", "lean"): {"plus": "上身移向右侧", "minus": "上身移向左侧", "plus_back": "上身移向右侧后又回来",
                        "minus_back": "上身移向左侧后又回来", "swings": "上身左右摇摆"},
    ("head", "tilt"): {"plus": "头移向右侧", "minus": "头移向左侧", "plus_back": "头移向右侧后又回来",
                       "minus_back": "头移向左侧后又回来", "swings": "头左右摆动"},
    ("body", "across"): {"plus": "整个身体移向画面右边", "minus": "整个身体移向画面左边",
                         "plus_back": "整个身体移向画面右边后又回来",
                         "minus_back": "整个身体移向画面左边后又回来", "swings": "整个身体在画面中来回移动"},
    ("body", "jump"): {"plus": "双脚离地", "minus": "双脚落地", "plus_back": "角色跳起", "minus_back": "双脚落地后又离地",
                       "swings": "角色多次跳起"},
    ("figure", "size"): {"plus": "整个身体靠近", "minus": "整个身体远离", "plus_back": "整个身体靠近后又远离",
                         "minus_back": "整个身体远离后又靠近", "swings": "整个身体多次靠近又远离"},
}  # fmt: skip


class Chinese:
    """Sentences in Chinese."""

    unseen = "角色不在画面中"
    knees_bent, legs_straight = "双膝弯曲", "双腿伸直"

    def _place(self, place: Place) -> str:
        return _ZH_HEIGHT[place[0]] + ("" if place == ("above_head", "beside") else _ZH_SIDE[place[1]])

    def foot(self, side: str) -> str:
        return f"{_ZH_SIDES[side]}脚抬起"

    def head(self, side: str) -> str:
        return f"头偏向{_ZH_SIDES[side]}侧"

    def arm(self, side: str, state: ArmState) -> str:
        name = _ZH_SIDES[side]
        if isinstance(state, str):
            return f"{name}臂垂在身体旁边"
        return f"{name}手在{self._place(state[0])}" + (f"且{'双肘' if side == 'both' else '肘部'}弯曲" if state[1] else "")

    def palm(self, side: str, back: bool) -> str:
        return f"{_ZH_SIDES[side]}手的{'手背' if back else '手心'}朝向观看者"

    def pose(self, posture: str, clauses: Sequence[str]) -> str:
        stem = {"upright": "直立", "unknown": "只有部分可见", "right": "身体偏向右侧", "left": "身体偏向左侧"}[posture]
        return "\uff0c".join([stem, *clauses])

    def movement(self, event: Event) -> str:
        side, _, limb = event.part.partition("_")
        if event.part in ("arms", "legs"):
            side, limb = "both", event.part[:-1]
        if limb not in ("arm", "leg"):
            return _ZH_OTHERS[event.part, event.axis][event.kind]
        name = _ZH_SIDES[side]
        noun = name + ("臂" if limb == "arm" else "脚" if event.axis == "lift" else "腿")
        moved = noun + _ZH_VERBS["up" if event.axis == "lift" else event.axis][event.kind]
        return moved if event.place is None else f"{moved}至{name}手位于{self._place(event.place)}"

    def joined(self, movements: Sequence[str]) -> str:
        return "\uff0c".join(movements) if movements else "姿势保持不变"

    def _named(self, told: Sequence[str]) -> str:
        return "\uff1b".join(f"左起第{k}个角色\uff1a{text}" for k, text in enumerate(told, 1))

    def paragraph(self, poses: Sequence[str], steps: Sequence[Sequence[str]]) -> str:
        if len(poses) == 1:
            sentences = [f"{OPENING['zh']}{poses[0]}。"]
            sentences += [f"{word}{text}。" for word, text in zip(CONNECTIVES["zh"], steps[0], strict=True)]
        else:
            sentences = [f"{OPENING['zh']}这样的\uff1a{self._named(poses)}。"]
            for k, word in enumerate(CONNECTIVES["zh"]):
                sentences.append(f"{word}{self._named([told[k] for told in steps])}。")
        return "".join(sentences)


PHRASES: dict[Language, Phrases] = {"en": English(), "zh": Chinese()}
