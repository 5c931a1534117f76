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
from dreamactor_core.text.prompts import LANGUAGES, SHIPPED, Language, frames_in_words, load_prompts, version_of


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
