"""How completions are asked for, with the tiny tokenizer, a few special tokens more, and the
embedded one, which puts a space before every text."""

from __future__ import annotations

import pytest

from shared.models import base as bases
from shared.models import completion
from tests import tiny_model

CODE = "def area(side):\n    return side * side\n"


def knowing(*tokens: str) -> bases.BaseModel:
    base = tiny_model.tiny_base()
    base.tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return base


def said(base: bases.BaseModel, ids: tuple[int, ...]) -> str:
    decoded: str = base.tokenizer.decode(list(ids))
    return decoded


@pytest.fixture(scope="module")
def embedded() -> bases.BaseModel:
    return bases.load(bases.EMBEDDED)


@pytest.mark.parametrize("form", completion.MARKS)
def test_both_sides_of_the_cursor_are_read_when_the_vocabulary_has_the_tokens(
    form: completion.Marks,
) -> None:
    base = knowing(*form.every)
    assert completion.marks(base) == form
    asked = said(base, completion.prompt_ids(base, "ab", "yz"))
    if form.middle:
        assert asked == f"{form.prefix}ab{form.suffix}yz{form.middle}"
    else:
        assert asked == f"{form.suffix}yz{form.prefix}ab"


def test_the_prefix_alone_is_read_when_the_tokenizer_has_no_fill_in_the_middle() -> None:
    base = tiny_model.tiny_base()
    assert completion.marks(base) is None
    assert said(base, completion.prompt_ids(base, "ab", "yz")) == "ab"


def test_the_far_ends_are_cut_when_there_is_little_room() -> None:
    base = knowing(*completion.MARKS[0].every)
    ids = completion.prompt_ids(base, "abcdefgh", "stuvwxyz", most_tokens=11)
    assert said(base, ids) == "<|fim_prefix|>cdefgh<|fim_suffix|>st<|fim_middle|>"
    roomy = completion.prompt_ids(base, "ab", "stuvwxyz", most_tokens=11)
    assert said(base, roomy) == "<|fim_prefix|>ab<|fim_suffix|>stuvwx<|fim_middle|>"
    plain = tiny_model.tiny_base()
    assert said(plain, completion.prompt_ids(plain, "abcdefgh", most_tokens=3)) == "fgh"


def test_something_is_read_when_the_file_is_empty() -> None:
    base = tiny_model.tiny_base()
    assert said(base, completion.prompt_ids(base, "")) == "\n"


def test_a_special_token_is_mere_text_when_code_quotes_it() -> None:
    base = knowing(*completion.MARKS[0].every)
    ids = completion.prompt_ids(base, "<|fim_middle|>")
    assert ids.count(base.tokenizer.convert_tokens_to_ids("<|fim_middle|>")) == 1


def test_a_text_goes_on_without_a_seam_when_it_is_cut_at_a_line(embedded: bases.BaseModel) -> None:
    head, tail = CODE[:16], CODE[16:]
    together = completion.prompt_ids(embedded, head) + completion.continuation_ids(embedded, tail)
    assert together == completion.prompt_ids(embedded, CODE)


@pytest.mark.parametrize("text", ["    return x\n", "self.x", " a", "\n\n  y", "é", ""])
def test_a_continuation_is_read_back_as_it_was(embedded: bases.BaseModel, text: str) -> None:
    for base in (embedded, tiny_model.tiny_base()):
        assert completion.text(base, completion.continuation_ids(base, text)) == text


def test_a_completion_ends_at_what_the_model_says_instead_of_the_end() -> None:
    base = knowing("<|endoftext|>", *completion.MARKS[0].every)
    ends = completion.end_ids(base)
    assert base.tokenizer.eos_token_id in ends
    assert base.tokenizer.convert_tokens_to_ids("<|endoftext|>") in ends
    assert base.tokenizer.convert_tokens_to_ids("<|fim_prefix|>") in ends


def test_a_cursor_behind_a_space_is_asked_for_as_if_the_line_went_on(
    embedded: bases.BaseModel,
) -> None:
    prefix, rest = "def area(side):\n    ", "return side * side\n"
    again = completion.repeated(embedded, prefix)
    prompt = completion.prompt_ids(embedded, prefix)
    whole = completion.prompt_ids(embedded, prefix + rest)
    assert (*prompt, *completion.continuation_ids(embedded, again + rest)) == whole
    assert completion.repeated(embedded, "def") == completion.repeated(embedded, " ") == ""
    filling = knowing(*completion.MARKS[0].every)
    assert completion.repeated(filling, prefix) == ""
    assert said(filling, completion.prompt_ids(filling, "ab ", "yz")).startswith(
        "<|fim_prefix|>ab <|fim_suffix|>"
    )
