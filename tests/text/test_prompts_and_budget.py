"""The prompt files say what the paper asks for, and a model is shown what the budget states."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamactor_core.text.budget import Budget, encode
from dreamactor_core.text.checks import CONNECTIVES, FUSED_OPENING, OPENING
from dreamactor_core.text.errors import BadAnswerError, TextError
from dreamactor_core.text.fusion import ON_BAD_ANSWER, Texts, check_connected, check_given, make_texts
from dreamactor_core.text.prompts import LANGUAGES, SHIPPED, TASKS, Language, Task, frames_in_words, load_prompts, version_of

# What the paper's three prompts ask for, and where ours say it, in English and in Chinese.
REQUIRED: dict[Task, dict[str, tuple[str, str]]] = {
    "motion": {
        "how the subject moves": ("how the subject moves", "主体是怎样动的"),
        "no appearance": ("What to leave out\n- Everything about looks", "不要写的内容\n- 一切外观"),
        "no gender": ('- Gender. Say "the character"', "- 性别。只说“角色”"),
        "every key pose of face, hands and body": (
            "Every key pose of the face, the hands and the whole body", "面部、双手和全身的每一个关键姿势",
        ),
        "how poses change": ("how one pose turns into the next", "一个姿势如何变成下一个"),
        "each hand by itself": ("For each hand", "每只手"),
        "the way the back of the hand faces": ("which way the back of the hand faces", "手背朝向哪里"),
        "where the hand is": ("where the hand is relative to the body", "手在身体的什么位置"),
        "what the hand touches": ("what it touches or holds", "碰到或拿着什么"),
        "the first five seconds": ("The first five seconds only", "只写前五秒"),
        "expressions over time": ("The expression of the face and how it changes over time", "面部表情以及它随时间的变化"),
        "speaking and the like": ("the subject speaks, sings, laughs, breathes or chews", "主体说话、唱歌、大笑、明显地呼吸或咀嚼"),
        "one paragraph without line breaks": ("One paragraph without line breaks", "只写一段，不换行"),
        "the opening": (
            "begins with exactly these words: In the video, the character's initial pose is",
            "以这几个字开头：视频中，角色的初始姿势是",
        ),
        "four steps in their order": (
            'in this order and with these words: "Subsequently," then "Then," then "After that," then "Finally,"',
            "依次以“随后，”“接着，”“之后，”“最后，”开头",
        ),
    },
    "appearance": {
        "what the character looks like": ("what its character looks like", "其中角色的外观"),
        "gender": ("- Gender;", "- 性别；"),
        "or that it cannot be told": ('where it cannot be told, write "undistinguishable"', "看不出来时写“性别无法分辨”"),
        "no action or posture": (
            "What to leave out\n- What the character does: action, posture", "不要写的内容\n- 角色在做什么：动作、姿态",
        ),
        "hair": ("- Hair or fur", "- 头发或皮毛"),
        "eyes, brows and lips": ("Eyes, eyebrows, lips", "眼睛、眉毛、嘴唇"),
        "what the face wears": (
            "glasses, make-up, piercings and whatever else is on the face", "眼镜、妆容、面部饰物以及脸上的其他东西",
        ),
        "clothes and accessories": ("Clothes from top to bottom and every accessory", "从上到下的衣着和每一件配饰"),
        "held objects": ("Objects that the character holds or carries", "角色手持或携带的物品"),
        "skin tone and build": ("Skin tone and build", "肤色和体型"),
        "one paragraph": ("One paragraph without line breaks", "只写一段，不换行"),
    },
    "fusion": {
        "the picture's character makes the video's movement": (
            "the character of the picture makes the movement of the video", "图片中的角色做出视频中的动作",
        ),
        "all of the appearance": ("- All of the appearance.", "- 全部外观，"),
        "all of the motion": ("- All of the movement,", "- 全部动作，"),
        "interaction with the surroundings": ("its contacts with the surroundings", "与周围环境的接触"),
        "nothing changed but parts of the body": (
            "Change nothing but the names of the parts of the body", "除下文所说的身体部位名称外，什么都不改",
        ),
        "biologically sensible": ("It must remain possible for a living body of its kind", "必须符合这种生物的身体条件"),
        "the picture decides how many": ("The picture decides", "以图片为准"),
        "many onto one": (
            "several subjects and the picture has one character, take the movement of the most prominent subject only",
            "视频中有几个主体而图片中只有一个角色时，只取最突出的那个主体的动作",
        ),
        "one onto many": (
            "the video has one subject and the picture has several characters, all of them make that movement",
            "视频中只有一个主体而图片中有几个角色时，所有角色都做这个动作",
        ),
        "a bird has no hands": (
            "a bird: arms become wings, feet become claws. Never write hand, palm, fist",
            "鸟来做：手臂换成翅膀，脚换成爪子。不要出现手、手掌、拳头",
        ),
        "a quadruped has paws": (
            "a cat, a dog or another four-legged animal: hands and arms become forelegs, legs become hind legs, the palm becomes "
            "the paw",
            "猫、狗或其他四足动物来做：手和手臂换成前腿，腿换成后腿，手掌换成爪垫",
        ),
        "other bodies": (
            "Any other body: upper limbs become forelimbs or feelers, lower limbs become hind limbs or whatever it stands on",
            "其他身体：上肢换成前肢或触须，下肢换成后肢或支撑身体的部分",
        ),
        "what has no counterpart": (
            "What has no counterpart in the character's body is left out", "角色的身体没有对应部位的，就省去",
        ),
        "one fluent paragraph": ("One fluent paragraph without line breaks", "只写通顺的一段，不换行"),
        "the opening": ('It begins with the words "In the video, a" or "In the video, an"', "以“视频中，一”开头"),
    },
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_the_prompts_ask_for_what_the_paper_asks_for(task: Task, language: Language) -> None:
    text = load_prompts(language).texts[task]
    said = {what: {"en": english, "zh": chinese}[language] for what, (english, chinese) in REQUIRED[task].items()}
    missing = [what for what, words in said.items() if words not in text]
    assert not missing, f"the prompt does not ask for {missing}; if it says so in other words, say them here"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_prompts_name_the_words_that_the_checks_want(language: Language) -> None:
    prompts = load_prompts(language)
    for words in (OPENING[language], *CONNECTIVES[language]):
        assert words in prompts.texts["motion"]
    for words in FUSED_OPENING[language]:
        assert words in prompts.texts["fusion"]


def test_filling_leaves_braces_of_the_texts_alone() -> None:
    filled = load_prompts("en").fill("fusion", motion="{appearance} {x}", appearance="{motion}")
    assert "Movement:\n{appearance} {x}\n" in filled and filled.endswith("Appearance:\n{motion}")


def test_frames_in_words() -> None:
    assert frames_in_words(20, 4.0, "en") == "20 frames, 4 frames per second"
    assert frames_in_words(1, 4.0, "en") == "1 frame"
    assert "20" in frames_in_words(20, 2.5, "zh") and "2.5" in frames_in_words(20, 2.5, "zh")


def test_an_edited_prompt_is_used_and_has_another_version(tmp_path: Path) -> None:
    before = load_prompts("en")
    shutil.copy(SHIPPED / "motion.en.txt", tmp_path)
    assert load_prompts("en", [tmp_path, SHIPPED]).version == before.version
    edited = tmp_path / "motion.en.txt"
    edited.write_text(edited.read_text("utf-8") + "\nBe brief.", "utf-8")
    after = load_prompts("en", [tmp_path, SHIPPED])
    assert after.version != before.version and after.texts["motion"].endswith("Be brief.")
    assert load_prompts("zh", [tmp_path, SHIPPED]).version == load_prompts("zh").version != before.version


def test_the_version_of_a_language_that_is_not_known_yet_is_that_of_all(tmp_path: Path) -> None:
    assert [version_of(language) for language in LANGUAGES] == [load_prompts(language).version for language in LANGUAGES]
    seen = {version_of(None, [tmp_path])}
    for count, language in enumerate(LANGUAGES, 2):
        (tmp_path / f"appearance.{language}.txt").write_text("What is it like?", "utf-8")
        seen.add(version_of(None, [tmp_path]))
        assert len(seen) == count, f"an edited prompt in {language} is not seen"


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [("motion", b"No place.", "no {frames}"), ("fusion", b"Only {motion}.", "no {appearance}"), ("appearance", b" \n", "is empty"),
     ("appearance", b"\xff\xff", "cannot be read")],
)  # fmt: skip
def test_a_broken_prompt_is_named(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / f"{name}.en.txt").write_bytes(data)
    with pytest.raises(TextError, match=rf"{name}\.en\.txt .*{told}"):
        load_prompts("en", [tmp_path])


def test_the_budget_is_kept() -> None:
    budget = Budget(2.0, 128)
    assert budget.frames == 10
    pictures = np.random.default_rng(0).integers(0, 255, (3, 90, 320, 3), np.uint8)
    for data in encode(pictures, budget):
        assert Image.open(io.BytesIO(data)).size == (128, 36)
        assert Image.open(io.BytesIO(data)).format == "JPEG"
    assert Image.open(io.BytesIO(encode(pictures[:, :40, :64], budget)[0])).size == (64, 40), "a small picture was made larger"
    assert encode(pictures, budget) == encode(pictures, budget), "the same pictures must have the same fingerprint"


def test_a_smooth_picture_keeps_its_colours() -> None:
    ramp = np.zeros((1, 64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.linspace(0, 255, 64), 128
    back = np.asarray(Image.open(io.BytesIO(encode(ramp, Budget())[0])), np.float64)
    assert np.abs(back - ramp[0]).mean() < 4


@pytest.mark.parametrize(("fps", "side"), [(0.0, 512), (float("nan"), 512), (31.0, 512), (4.0, 10), (4.0, 5000)])
def test_a_budget_that_is_none(fps: float, side: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        Budget(fps, side)


# modes


def never(*_: str) -> str:
    raise AssertionError("something was asked that was not needed")


def test_no_text_asks_nothing() -> None:
    assert make_texts("none", Texts(), never, never, never) == Texts()
    given = Texts("In the video, a cat hops.", "It hops.", "A cat.")
    assert make_texts("none", given, never, never, never) == Texts("", "It hops.", "A cat."), "no text means no prompt"


def test_concatenated_needs_no_fusion() -> None:
    assert make_texts("concatenated", Texts(), lambda: "It moves.", lambda: "A cat.", never) == Texts(
        "A cat. It moves.", "It moves.", "A cat."
    )
    assert make_texts("concatenated", Texts(), lambda: "It moves.", lambda: "", never).fused == "It moves."


def test_what_is_given_is_not_asked_for() -> None:
    given = Texts(motion="It moves.", appearance="A cat.")
    assert make_texts("fused", given, never, never, lambda m, a: f"{a}|{m}").fused == "A cat.|It moves."
    assert (
        make_texts("fused", Texts(motion="It moves."), never, lambda: "A dog.", lambda m, a: f"{a}|{m}").fused == "A dog.|It moves."
    )
    assert make_texts("fused", Texts("All."), never, never, never) == Texts("All.")


ALL = ("fused_prompt", "motion_text", "appearance_text")


@pytest.mark.parametrize("empty", ["", " \n"])
@pytest.mark.parametrize("name", ALL)
def test_a_text_that_is_connected_but_empty_is_told(name: str, empty: str) -> None:
    connected = dict.fromkeys(ALL) | {name: empty}
    rest = [other for other in ALL if other != name]
    told = rf"{name} is connected but empty, expected a text; look at the node that made it \(Generate Text: max_length, model\)"
    with pytest.raises(TextError, match=told):
        check_connected("fused", connected, rest)
    (warning,) = check_connected("fused", connected, ALL)
    assert warning.startswith(f"{name} is connected but empty, and taken as not connected")
    assert check_connected("none", connected, ()) == [], "it is not needed"


def test_what_is_not_connected_is_not_empty() -> None:
    assert check_connected("fused", dict.fromkeys(ALL), ()) == []
    assert check_connected("fused", dict.fromkeys(ALL, "A text."), ()) == []
    assert check_connected("fused", dict.fromkeys(ALL, "") | {"fused_prompt": "A text."}, ()) == [], "nothing else is needed"


def test_an_unknown_mode() -> None:
    with pytest.raises(TextError, match="the mode is 'both', expected one of none, concatenated, fused"):
        make_texts("both", Texts(), never, never, never)  # type: ignore[arg-type]


def test_given_texts_are_refused_or_warned_of_as_the_user_chose() -> None:
    given = Texts("In the video, a cat shows its thumb.", "She waves.", "A cat.")
    for name, text, alone in (("motion_text", given.motion, replace(given, fused="")), ("fused_prompt", given.fused, given)):
        with pytest.raises(BadAnswerError, match=rf"given {name} does not keep to the form: .*on_bad_answer(.|\n)*{name}: {text}"):
            check_given("fused", alone, "en", "error")
    (warning,) = check_given("fused", replace(given, fused="In the video, a cat sits."), "en", "error")
    assert "motion_text" in warning, "the prompt is not made of it"
    motion, fused = check_given("fused", given, "en", "warn")
    assert motion.startswith("The given motion_text does not keep to the form") and '"she"' in motion
    assert fused.startswith("The given fused_prompt does not keep to the form") and '"thumb"' in fused
    for choice in ON_BAD_ANSWER:
        assert check_given("fused", Texts(), "en", choice) == []
        assert check_given("none", given, "en", choice) == [], "it is not used"


def test_a_concatenation_that_is_given_need_not_be_a_fusion() -> None:
    assert check_given("concatenated", Texts("A cat. It moves.", "", "A cat."), "en", "error") == []
    with pytest.raises(BadAnswerError, match="appearance_text does not keep"):
        check_given("concatenated", Texts("", "", "A cat with wings spread."), "en", "error")
