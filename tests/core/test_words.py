"""The table of word vectors: any prompt works, words are told apart, padding is silent."""

from __future__ import annotations

import pytest
import torch

from dreamactor_core.words import BUCKETS, DIM, MAX_WORDS, WordTable, encode_text, word_ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a human waves",
        "a cartoon does a jumping jack and a bird flaps",
        "word " * 100,
        "…!?",
        "猫が歩く",
        "é 𝛼",
    ],
)
def test_any_text_becomes_rows_of_the_table(text: str) -> None:
    ids = word_ids(text)
    assert len(ids) == MAX_WORDS
    assert all(0 <= i < BUCKETS for i in ids)


@pytest.mark.parametrize("count", [0, 1, 5, MAX_WORDS, MAX_WORDS + 4])
def test_words_come_first_and_padding_after(count: int) -> None:
    ids = word_ids(" ".join(f"word{k}" for k in range(count)))
    kept = min(count, MAX_WORDS)
    assert all(ids[:kept])
    assert not any(ids[kept:])


def test_case_and_punctuation_do_not_matter_and_order_does() -> None:
    assert word_ids("A human, waves!") == word_ids("a  human waves")
    assert word_ids("human a waves") != word_ids("a human waves")
    assert sorted(word_ids("human a waves")) == sorted(word_ids("a human waves"))


def test_rows_do_not_depend_on_the_process() -> None:
    """A checkpoint is read by other processes: a row must be the same there."""
    assert word_ids("a human waves")[:3] == [1 + crc % (BUCKETS - 1) for crc in (0xE8B7BE43, 0xA562D5F5, 0x8FB0F022)]


WORLD = """a and human cartoon quadruped bird waves raises both arms swings the claps squats does jumping jack kicks
marches sways dances walks nods rears lifts paw flaps pecks struts"""


def test_the_worlds_words_are_told_apart() -> None:
    words = WORLD.split()
    assert len({word_ids(word)[0] for word in words}) == len(words)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_table_is_its_seed(seed: int) -> None:
    table = WordTable.random(seed)
    assert torch.equal(table.vectors, WordTable.random(seed).vectors)
    assert not torch.equal(table.vectors, WordTable.random(seed + 1).vectors)
    assert table.vectors.shape == (BUCKETS, DIM)
    assert not table.vectors[0].any()
    assert float(table.vectors[1:].std()) == pytest.approx(1, abs=0.01)
    assert float(table.vectors[1:].mean()) == pytest.approx(0, abs=0.01)


def test_a_table_survives_its_state() -> None:
    table, other = WordTable.random(3), WordTable()
    other.load_state_dict(table.state_dict())
    assert torch.equal(other.vectors, table.vectors)
    assert not list(table.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_prompts_become_vectors_word_by_word(dtype: torch.dtype) -> None:
    table = WordTable.random().to(dtype)
    texts = ["a human waves", "", "a bird"]
    encoded = encode_text(table, texts)
    assert encoded.shape == (3, MAX_WORDS, DIM)
    assert encoded.dtype == torch.float32
    for row, text in zip(encoded, texts, strict=True):
        for vector, index in zip(row, word_ids(text), strict=True):
            assert torch.equal(vector, table.vectors[index].float())
    assert not encoded[1].any()
    assert torch.equal(encoded[0, 0], encoded[2, 0]), "one word has one vector"


def test_a_batch_is_its_prompts_one_by_one() -> None:
    table = WordTable.random()
    texts = ["a human waves", "a bird flaps and a cartoon nods"]
    assert torch.equal(encode_text(table, texts), torch.cat([encode_text(table, [text]) for text in texts]))
