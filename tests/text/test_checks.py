"""Good and bad texts in both languages."""

from __future__ import annotations

import pytest
from stand_ins import APPEARANCE, FUSED, MOTION

from dreamactor_core.text.checks import check_appearance, check_fusion, check_motion, kind_of, tidy
from dreamactor_core.text.lexicon import LEXICONS

COMMA = "\uff0c"
MOTION_ZH = "视频中,角色的初始姿势是直立。随后,右臂抬起。接着,右手挥动两次,手背朝向观看者。之后,角色脸红。最后,右臂放下。".replace(
    ",", COMMA
)
APPEARANCE_ZH = "一位年轻女性,棕色长发,绿色眼睛,身穿红色大衣,手里拿着杯子。".replace(",", COMMA)


def told(problems: list[str]) -> str:
    return "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        MOTION,
        MOTION.replace("'", "\u2019"),
        f"  {MOTION}\n",
        MOTION.replace("the right arm rises", "the right hand touches the collar of the shirt, and the left one holds the hat"),
        MOTION.replace("the character speaks", "the character pants pretty fast and tosses the hair"),
        MOTION.replace("the character speaks", "the character mantles, redirects the look and manages a heroic shout"),
        MOTION.replace("the character speaks", 'the character says "then, now"'),
        MOTION.replace("Then, ", "Then, after that, "),
    ],
    ids=["plain", "typographic", "blanks", "touching", "verbs", "parts of words", "quotation", "connective inside"],
)
def test_good_motion(text: str) -> None:
    assert check_motion(text) == []


@pytest.mark.parametrize(
    "step",
    [
        "the right arm is stretched tall",
        "the back is held tall, the character breathes",
        "the character stands tall and the other character kneels",
        "the lips are pressed thin while the character nods",
        "the character takes short, quick steps",
        "with a big smile the character nods",
        "little by little the character sinks",
        "the right hand draws a large figure of eight in the air",
        "the character shows a thin smile and small nods towards another character",
        "the character is short of breath",
        "the character bends into the king pigeon pose",
        "the eyes narrow thin, then the character blinks",
    ],
)
def test_words_of_looks_that_are_said_of_a_movement(step: str) -> None:
    assert check_motion(MOTION.replace("the right arm rises", step)) == []


@pytest.mark.parametrize(
    ("who", "word"),
    [
        ("tall", "tall"), ("thin", "thin"), ("fat", "fat"), ("Asian", "asian"), ("tall, slightly older", "tall"),
        ("short but strong", "short"), ("Chinese", "chinese"), ("gold and silver", 'gold", "silver'), ("ponytailed", "ponytailed"),
        ("wavy-haired", "wavy-haired"), ("African-American", "african-american"), ("small", "small"),
    ],
)  # fmt: skip
def test_looks_of_the_character(who: str, word: str) -> None:
    assert f'"{word}"' in told(check_motion(MOTION.replace("the character speaks", f"the {who} character speaks")))


@pytest.mark.parametrize("who", ["actress", "king", "heroine", "princess", "bride", "brother", "daughter", "queens"])
def test_gender_in_a_noun(who: str) -> None:
    assert f'"{who}"' in told(check_motion(MOTION.replace("the character speaks", f"the {who} speaks")))


def test_looks_that_are_said_of_the_character() -> None:
    assert '"tall"' in told(check_motion(MOTION.replace("the character speaks", "the character is tall and speaks")))


@pytest.mark.parametrize(
    "step",
    [
        "the character runs its fingers through its hair",
        "the right arm moves up to the hair",
        "the character brings the glasses down",
        "the left arm reaches for the hat",
        "the left arm reaches for the brim of the hat",
        "the right elbow is at the level of the belt",
        "the right hand is held at the belt",
        "both hands meet above the collar",
        "the hat is taken off with the left hand",
        "the head leans towards the left sleeve",
        "the right hand disappears in its hair",
        "the fingers play with the necklace",
        "the character raises the hat and lowers it again",
    ],
)
def test_things_that_are_touched_or_say_where(step: str) -> None:
    assert check_motion(MOTION.replace("the right arm rises", step)) == []


@pytest.mark.parametrize(
    ("step", "thing"),
    [
        ("the dress swings", "dress"),
        ("the hair falls over the face", "hair"),
        ("the character moves to the left in a coat", "coat"),
        ("the right hand in a glove rises", "glove"),
        ("the hands in thick gloves meet", "gloves"),
        ("the character turns to the left and its hair swings", "hair"),
        ("the character with short hair nods", "hair"),
        ("the right hand rises, the skirt spins", "skirt"),
    ],
)
def test_things_that_are_only_looked_at(step: str, thing: str) -> None:
    assert f'"{thing}"' in told(check_motion(MOTION.replace("the right arm rises", step)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        (MOTION.replace(". Then,", ".\nThen,"), "line breaks"),
        (MOTION.replace(". Then,", ".\u2028Then,"), "line breaks"),
        (f"Here it is: {MOTION}", "must begin with"),
        (MOTION.replace("the character's", "the dancer's"), "must begin with"),
        (MOTION.replace("Subsequently,", "Later,"), '"Subsequently,"'),
        (MOTION.replace("Then,", "Next,"), '"Then,"'),
        (MOTION.replace("Then,", "X,").replace("After that,", "Then,").replace("X,", "After that,"), '"After that,"'),
        (MOTION.replace(" Finally, ", " and finally, "), '"Finally,"'),
        (MOTION.replace("After that, the", "Shortly after that, the"), '"After that,"'),
        (MOTION.replace("Finally, the", "Finally, her"), '"her"'),
        (MOTION.replace("the character speaks", "the man speaks"), '"man"'),
        (MOTION.replace("the character speaks", "the Woman speaks"), '"woman"'),
        (MOTION.replace("right arm rises", "right arm in a blue sleeve rises"), '"blue", "sleeve"'),
        (MOTION.replace("the character speaks", "the long-haired character speaks"), '"long-haired"'),
        (MOTION.replace("the character speaks", "the t-shirt moves, the hand touches the knee"), '"t-shirt"'),
        (MOTION_ZH, "English"),
    ],
)
def test_bad_motion(text: str, problem: str) -> None:
    assert problem in told(check_motion(text))


def test_every_fault_is_told_at_once() -> None:
    problems = check_motion("She waves.\nHe does not.")
    assert len(problems) == 4
    for expected in ("line breaks", "must begin", "no sentence", '"she", "he"'):
        assert expected in told(problems)


@pytest.mark.parametrize(
    "text",
    [
        MOTION_ZH,
        MOTION_ZH.replace(COMMA, ","),
        MOTION_ZH.replace("右臂抬起", "右手摸着衣领"),
        MOTION_ZH.replace("右臂抬起", "其他部位不动"),
        MOTION_ZH.replace("右臂抬起", "右臂抬到腰带的高度"),
        MOTION_ZH.replace("右臂抬起", "右手停在头发旁边"),
    ],
    ids=["plain", "ascii commas", "touching", "a part of a word", "a height", "a hand"],
)
def test_good_motion_in_chinese(text: str) -> None:
    assert check_motion(text, "zh") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (MOTION_ZH.replace("。接着", "。\n接着"), "line breaks"),
        ("说明" + MOTION_ZH, "must begin with"),
        (MOTION_ZH.replace("接着", "然后"), "接着"),
        (MOTION_ZH.replace("。最后", COMMA + "最后"), "最后"),
        (MOTION_ZH.replace("角色脸红", "他说话"), '"他"'),
        (MOTION_ZH.replace("右臂抬起", "穿着红色衬衫的右臂抬起"), '"穿着", "红色", "衬衫"'),
        (MOTION_ZH.replace("右臂抬起", "裙摆飘动"), '"裙"'),
        (MOTION_ZH.replace("角色脸红", "高大的角色说话"), '"高大"'),
        (MOTION_ZH.replace("角色脸红", "角色帅气地转身"), '"帅气"'),
        (MOTION_ZH.replace("角色脸红", "国王说话"), '"国王"'),
        (MOTION_ZH.replace("角色脸红", "瘦角色说话"), '"瘦"'),
        (MOTION, "Chinese"),
    ],
)
def test_bad_motion_in_chinese(text: str, problem: str) -> None:
    assert problem in told(check_motion(text, "zh"))


@pytest.mark.parametrize(
    "text",
    [
        APPEARANCE,
        "A fox with a standing collar and running shoes, a palm print on the shirt.",
        "A girl with starry eyes, wavy hair and a jumpsuit, holding a walking stick.",
        "A man with laugh lines, a scar running down the cheek.",
        "An undistinguishable youthful-looking character with a posy of flowers.",
        "A woman with glasses that sit on her nose.",
        "A woman with round glasses, which sit low on her nose.",
        "A queen in a blue gown; a crown sits on her head.",
        "A woman with grey hair and a crown sits on her head.",
        "A boy with hair that stands up.",
        "A cat with a tuft of fur standing up, its left ear stands out.",
        "A woman whose hat sits low, the woman's collar stands up.",
        "A girl in a dance dress with a hat sitting on her head.",
        "A squat robot in a jump suit.",
        "A man in a flying jacket with a fold-over collar, open-toed shoes and flying goggles.",
        "A woman with hair flying loose, and a shirt with a pattern of flying cranes.",
        "A woman with glasses perched on the bridge of her nose and a parrot perched on her shoulder.",
        "A boy with open-toed sandals, an open collar and trouser legs folded at the hem.",
        "A Scottish fold cat with folded ears and an open coat, its fur parted along the back.",
        "A dragon with large wings, bent horns, a wide mouth and spread-out scales.",
        "A flying squirrel with a headband and tilted eyes.",
        "A girl with closed shoes, a jacket with bent zips and a tilted hat.",
    ],
)
def test_good_appearance(text: str) -> None:
    assert check_appearance(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A woman standing in a red coat.", '"standing"'),
        ("A woman with brown hair standing in a field.", '"standing"'),
        ("A woman in a red coat stands in a field.", '"stands"'),
        ("A woman with a crown sits on a chair.", '"sits"'),
        ("A dragon sits on a rock.", '"sits"'),
        ("A green dragon with wings. The dragon sits on a rock.", '"sits"'),
        ("A woman in a red coat. She stands in a field.", '"stands"'),
        ("Two girls in red coats, who stand in a field.", '"stand"'),
        ("A robot that stands on one leg.", '"stands"'),
        ("A woman with a red coat and sits on a chair.", '"sits"'),
        ("A girl in a red coat dances.", '"dances"'),
        ("A woman in a red coat, who smiles.", '"smiles"'),
        ("A woman in a red coat, looking at the viewer.", '"looking at"'),
        ("A woman in a red coat with crossed arms.", '"crossed arms"'),
        ("A woman in a red coat, hands on her hips.", '"hands on her hips"'),
        ("A parrot perched on a branch with wings spread.", '"perched", "wings spread"'),
        ("A green parrot, flying.", '"flying"'),
        ("A baby in a blue suit, crawling on all fours.", '"crawling", "on all fours"'),
        ("A woman in a red coat, arms folded.", '"arms folded"'),
        ("A woman in a red coat, her head tilted to one side.", '"head tilted"'),
        ("A woman in a red coat, her head slightly turned.", '"head slightly turned"'),
        ("A woman in a red coat, mouth open.", '"mouth open"'),
        ("A woman in a red coat with parted lips and closed eyes.", '"parted lips", "closed eyes"'),
        ("A woman in a red coat, legs bent.", '"legs bent"'),
        ("A woman in a red coat, knees slightly bent, legs apart.", '"knees slightly bent", "legs apart"'),
        ("A woman in a red coat, arms at her sides.", '"arms at her sides"'),
        ("A dog with its tongue hanging out.", '"tongue hanging out"'),
        ("A bird with spread wings.", '"spread wings"'),
        ("A woman in a red coat.\n\nShe has green eyes.", "line breaks"),
        ("", "empty"),
    ],
)
def test_bad_appearance(text: str, problem: str) -> None:
    assert problem in told(check_appearance(text))


def test_appearance_in_chinese() -> None:
    assert check_appearance(APPEARANCE_ZH, "zh") == []
    assert '"站在"' in told(check_appearance(APPEARANCE_ZH + "她站在海边。", "zh"))
    assert '"微笑"' in told(check_appearance(APPEARANCE_ZH + "面带微笑。", "zh"))
    problems = told(check_appearance(f"一只绿色的鹦鹉{COMMA}展开翅膀{COMMA}张着嘴。", "zh"))
    assert '"展开翅膀", "张着嘴"' in problems
    problems = told(check_appearance(f"一位年轻女性{COMMA}歪着头{COMMA}踮着脚。", "zh"))
    assert '"歪着头", "踮着脚"' in problems
    assert check_appearance(f"一位飞行员{COMMA}身穿飞行夹克{COMMA}额头上有抬头纹{COMMA}脸上有一张嘴。", "zh") == []
    assert check_appearance("一只爬行动物。", "zh") == []


@pytest.mark.parametrize(
    ("appearance", "kind"),
    [
        ("A black and white cat with a bell.", "quadruped"),
        ("A male mallard duck with a green head.", "bird"),
        ("A parrot on a man's shoulder.", "bird"),
        ("A woman with a parrot.", "human"),
        ("A girl with cat ears.", "human"),
        ("An undistinguishable character with cat-eye glasses, a dog beside it.", None),
        ("A cat-eared robot.", None),
        ("A golden retriever with a red collar.", "quadruped"),
        ("A bulldog.", "quadruped"),
        ("A German shepherd, its fur black and brown.", "quadruped"),
        ("A shepherd with a crook.", None),
        ("A cockatiel with a yellow crest.", "bird"),
        ("A teddy bear.", None),
        ("A cartoon bear in a police uniform.", None),
        ("An anthropomorphic fox in a coat.", None),
        ("A cartoon woman.", "human"),
        ("A bear holding a toy.", "quadruped"),
        ("A duckboard.", None),
        ("A round blue robot.", None),
        # who has to do with animals is none
        ("A male lion tamer with a whip.", None),
        ("A female horse rider, blond, in a red coat.", None),
        ("A young female dog walker in a red coat.", None),
        ("A dog groomer, female, with brown hair.", None),
        ("A chicken farmer with a straw hat.", None),
        ("A chicken farmer and a dog.", None),
        ("A horse riding instructor with a helmet.", None),
        ("A dog walking teacher.", None),
        ("A dog and cat groomer.", None),
        ("A dog's owner, male.", None),
        ("A walker of dogs.", None),
        ("A knight leading a horse.", None),
        ("A knight riding her horse.", None),
        ("A knight, a dog at the heel.", None),
        ("A cat burglar in black.", None),
        ("A cub scout.", None),
        # and an animal stays one
        ("A male lion.", "quadruped"),
        ("A male lion with a dark mane.", "quadruped"),
        ("An orange cat, gender undistinguishable, with green eyes.", "quadruped"),
        ("A small, fluffy, white dog with black eyes.", "quadruped"),
        ("A dog, male, brown.", "quadruped"),
        ("A cat in the arms of a knight.", "quadruped"),
        ("A cat sitting on a chair.", "quadruped"),
        ("A sitting cat.", "quadruped"),
        ("A lion is shown.", "quadruped"),
        ("A dog and a cat.", "quadruped"),
        ("A dog and cat.", "quadruped"),
        ("A pair of brown dogs with collars.", "quadruped"),
        ("Two dogs of one breed.", "quadruped"),
        ("A corgi mix, brown.", "quadruped"),
        ("A lion cub.", "quadruped"),
        ("A cat (tabby) with a bell.", "quadruped"),
        ("A horse \u2013 its mane is black.", "quadruped"),
        ("A king penguin.", "bird"),
        ("A duckling with yellow down.", "bird"),
        ("A green parrot from the side.", "bird"),
    ],
)
def test_what_the_character_is(appearance: str, kind: str | None) -> None:
    assert kind_of(appearance) == kind


@pytest.mark.parametrize(
    ("appearance", "kind"),
    [("一只橘色的猫,毛很短。", "quadruped"), ("一只绿色的鹦鹉,嘴是黑色的。", "bird"), ("一个女孩,抱着一只猫。", "human"),
     ("一个机器人,戴着马尾假发。", None), ("一只金毛,戴着项圈。", "quadruped"), ("一只卡通熊,穿着警服。", None),
     ("一位狮子驯兽师,男性。", "human"), ("一个狮子驯兽师,性别无法分辨。", None), ("一个驯马师,穿着红色外套。", None),
     ("一名骑马的运动员。", "human"),
     ("一个狗的主人。", None), ("一个老者牵着一匹马。", None), ("一个养鸡场主。", None),
     ("一头雄性狮子,性别为雄。", "quadruped"), ("一只小猫咪。", "quadruped"), ("一只金毛犬。", "quadruped"),
     ("一只猫和一只狗。", "quadruped"),
     ("一只黑白相间的大熊猫,圆耳朵。", "quadruped"), ("一只猫头鹰,羽毛是棕色的。", "bird"), ("一只白鸽子。", "bird")],
)  # fmt: skip
def test_what_the_character_is_in_chinese(appearance: str, kind: str | None) -> None:
    for text in (appearance, appearance.replace(",", COMMA)):
        assert kind_of(text, "zh") == kind


@pytest.mark.parametrize("text", [FUSED, FUSED.replace("a woman", "an old woman")])
def test_good_fusion(text: str) -> None:
    assert check_fusion(text, APPEARANCE) == []


@pytest.mark.parametrize(
    "text",
    [FUSED.replace("In the video", "In this video"), "In the video, applause is heard.", "In the video, the woman waves.", ""],
)
def test_fusion_that_begins_otherwise(text: str) -> None:
    assert check_fusion(text, APPEARANCE)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("raises a foreleg under a palm tree", None),
        ("beforehand grips the handle", None),
        ("uses a second-hand bag; on the other hand, it walks", None),
        ("raises its right hand", '"hand"'),
        ("shows its palms", '"palms"'),
        ("clenches a Fist", '"fist"'),
        ("lifts both arms", '"arms"'),
        ("lies on the arm of a sofa", None),
        ("moves its fingertips, a thumb and the knuckles", '"fingertips", "thumb", "knuckles"'),
        ("bends the wrists and the forearms", '"wrists", "forearms"'),
    ],
)
def test_limbs_that_animals_do_not_have(words: str, fault: str | None) -> None:
    for animal, instead in (("cat", "paws"), ("parrot", "wings")):
        problems = told(check_fusion(f"In the video, a {animal} {words}.", f"A green {animal} with a collar."))
        assert (fault is None and problems == "") or (fault is not None and fault in problems and instead in problems)
        assert check_fusion(f"In the video, a {animal} {words}.", "A man in the costume of an animal.") == []


@pytest.mark.parametrize("trade", ["male lion tamer with a whip", "female horse rider", "dog groomer, female, in a blue coat"])
def test_who_has_to_do_with_animals_has_hands(trade: str) -> None:
    assert check_fusion(f"In the video, a {trade} raises the right hand.", f"A {trade}.") == []


def test_fusion_in_chinese() -> None:
    opening = f"视频中{COMMA}一只猫"
    assert check_fusion(f"{opening}抬起前腿{COMMA}爪垫碰到沙发扶手。", "一只猫。", "zh") == []
    assert '"手"' in told(check_fusion(f"{opening}抬起右手。", "一只猫。", "zh"))
    assert '"拳"' in told(check_fusion(f"{opening}握紧拳头。", "一只猫。", "zh"))
    assert '"拇指", "指尖", "右臂"' in told(check_fusion(f"{opening}伸出拇指{COMMA}指尖触到右臂。", "一只猫。", "zh"))
    assert "must begin" in told(check_fusion("有一只猫。", "一只猫。", "zh"))


def test_thinking_aloud_is_left_out() -> None:
    assert tidy(" <think>\nShe waves.\n</think>\n\n A text. ") == "A text."
    assert tidy("A <think> text") == "A <think> text"
    assert tidy("She waves. A woman, so...\n</think>\n\nA text.") == "A text.", "the prompt had opened the tag"
    assert tidy("<think>I end with </think>.</think>A text.") == "A text."
    assert tidy(" <think>\nShe waves and") == "", "it was cut off while it thought"


def test_no_list_holds_a_word_twice() -> None:
    for lexicon in LEXICONS.values():
        for name, words in vars(lexicon).items():
            assert len(set(words)) == len(words), name
