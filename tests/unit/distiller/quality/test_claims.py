"""What sentences commit themselves to, by hand-computed cases."""

from __future__ import annotations

import pytest

from services.distiller.quality import claims


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 1,200 m long and cost 3.50 crowns.", {"1200", "3.5"}),
        ("Twelve of the twenty-one keepers left in 1871.", {"12", "20", "1871"}),
        ("One of them saw 007.", {"7"}),
        ("in the 1930s", {"1930"}),
        ("from -5 to \u22123.50, or minus 7", {"-5", "-3.5", "-7"}),
        ("12 degrees below zero", {"-12"}),
        ("10-20 rooms, pages 3 -4, the Ryd-9, 0 below zero", {"10", "20", "3", "4", "9", "0"}),
        ("no number", set()),
    ],
)
def test_numbers_are_found_however_they_are_written(text: str, expected: set[str]) -> None:
    # `one` seldom counts anything.
    assert claims.numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The bridge was built by Ida Kroll.", {"ida", "kroll"}),
        ("Japan", {"japan"}),
        ("Current ecology is old.", set()),
        ("It fell. Then Ögedei came.", {"ogedei"}),
        ("The Franco-Prussian war", {"franco", "prussian"}),
        ("an ABC-branded network", {"abc"}),
    ],
)
def test_names_are_capitals_that_no_sentence_begins_with(text: str, expected: set[str]) -> None:
    assert claims.names(text) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("mongolian", "Genghis Khan united Mongolia.", True),
        ("eu", "The European Union pays.", True),
        ("mayer", "Maria Goeppert-Mayer won.", True),
        ("spain", "The Canaries are Castilian.", False),
        ("us", "Use it.", False),
    ],
)
def test_name_is_said_when_a_word_is_much_like_it(name: str, text: str, said: bool) -> None:
    assert claims.says_name(name, text) is said


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ("The tower is painted red.", "The tower is not painted red.", "paint"),
        ("The harbour opened in May.", "The harbour closed in May.", "opened"),
        ("It is not only old but tall.", "It is old and tall.", ""),
        ("It never burns oil.", "It does not burn oil.", ""),
        ("The light is above the harbour.", "The light is above the town.", ""),
    ],
)
def test_opposites_are_found_when_one_text_denies_the_other(
    one: str, other: str, word: str
) -> None:
    assert claims.flipped(one, other) == word
