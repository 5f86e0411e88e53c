"""End tokens, and text pieces against whole decoding."""

from __future__ import annotations

import pytest

from services.inference import decoding
from tests import tiny_model


def test_end_tokens_are_of_settings_and_tokenizer_when_they_differ(base):
    base.model.generation_config.eos_token_id = [3, 5]
    found = decoding.end_ids(base.model, base.tokenizer)
    assert found == {3, 5, base.tokenizer.eos_token_id}


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 と 🎉🎉", " leading", ""])
def test_pieces_add_up_when_characters_spread_over_tokens(base, text):
    pieces = decoding.TextPieces(base.tokenizer)
    told = [pieces.add(token) for token in base.tokenizer(text)["input_ids"]]
    assert "".join(told) == text
    assert not any("\ufffd" in piece for piece in told)
    assert pieces.rest() == ""


def test_pieces_are_of_the_new_tokens_alone_when_they_go_on_behind_others(base):
    behind = base.tokenizer("é\n")["input_ids"]
    pieces = decoding.TextPieces(base.tokenizer, behind)
    told = [pieces.add(token) for token in base.tokenizer(" né")["input_ids"]]
    assert told == [" ", "n", "", "é"]
    assert (pieces.tokens, pieces.rest()) == (4, "")


def test_pieces_wait_when_a_character_is_not_whole(base):
    pieces = decoding.TextPieces(base.tokenizer)
    assert [pieces.add(token) for token in base.tokenizer("é")["input_ids"]] == ["", "é"]


def test_rest_is_told_when_the_answer_ends_within_a_character(base):
    pieces = decoding.TextPieces(base.tokenizer)
    assert pieces.add(base.tokenizer("é")["input_ids"][0]) == ""
    assert pieces.rest() == "\ufffd"
    assert pieces.rest() == ""


def test_pieces_add_up_when_tokens_are_random_bytes(base):
    ids = tiny_model.reference_ids(base, "How tall?", 60)
    pieces = decoding.TextPieces(base.tokenizer)
    told = "".join([pieces.add(token) for token in ids]) + pieces.rest()
    assert told == base.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("text", "expected"), [(" return  x", "return  x"), ("return x", "return x"), ("  x", " x")]
)
def test_what_is_repeated_is_left_out_where_the_text_begins_with_it(base, text, expected):
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = decoding.TextPieces(base.tokenizer, repeated=" ")
    assert "".join([*map(pieces.add, ids), pieces.rest()]) == expected
