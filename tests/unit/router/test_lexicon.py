from __future__ import annotations

import math

import pytest

from services.router import lexicon


def test_words_and_neighbours_are_terms_whatever_stands_between():
    assert list(lexicon.terms("Can't I, Größe?")) == ["can't", "i", "größe", "can't i", "i größe"]
    assert not lexicon.terms("?!") and lexicon.terms("a " * 10_000).total() == 399


def _told(card: list[str]) -> lexicon.Told:
    return lexicon.Told(tuple(map(lexicon.terms, card)))


def _lexicon(*cards: list[str], rarities_of: lexicon.Lexicon | None = None) -> lexicon.Lexicon:
    return lexicon.Lexicon(list(map(_told, cards)), rarities_of)


def test_cosine_is_exact_when_computed_by_hand():
    found = _lexicon(["red"], ["blue", "red"])
    # Three examples; red is in two of them, blue in one.
    red, blue = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    assert found.cosines(lexicon.terms("red")) == pytest.approx([1.0, 1 / math.sqrt(2)])
    length = math.hypot(red, blue, math.log(4) + 1)  # The pair of both was never seen.
    both = [red / length, (red + blue) / math.sqrt(2) / length]
    assert found.cosines(lexicon.terms("blue red")) == pytest.approx(both)


def test_unknown_words_make_a_question_stranger_when_the_rest_is_the_same():
    found = _lexicon(["transfer money to my account"], ["what is the weather"])
    near, far = (
        found.cosines(lexicon.terms("transfer money"))[0],
        found.cosines(lexicon.terms("transfer money zorblax"))[0],
    )
    assert 0 < far < near < 1
    assert list(found.cosines(lexicon.terms("zorblax"))) == [0.0, 0.0]


def test_rare_words_count_more_when_cards_share_the_others():
    cards = [["what is my balance"], ["what is my limit"], ["what is my name"]]
    best = _lexicon(*cards).cosines(lexicon.terms("what is the limit"))
    assert best.argmax() == 1 and best[1] > 1.5 * best[0]


def test_one_card_alone_is_weighed_as_among_the_others_when_told_so():
    cards = [["what is my balance"], ["what is my limit", "what is it"], ["a limit is what"]]
    found = _lexicon(*cards)
    for at, card in enumerate(cards):
        alone = _lexicon(card, rarities_of=found)
        assert (
            alone.cosines(lexicon.terms("what is the limit"))[0]
            == found.cosines(lexicon.terms("what is the limit"))[at]
        )


def test_cosines_are_the_same_when_a_card_is_remembered_and_when_it_was_forgotten(monkeypatch):
    monkeypatch.setattr(lexicon, "_REMEMBERED_CARDS", 2)
    rare, asked = _lexicon(["what is my balance"], ["name it"]), lexicon.terms("what is the limit")
    cards = [_told(["what is the limit " + "of it " * n]) for n in range(4)]
    expected = [lexicon.Lexicon([card], _lexicon(["what is my balance"], ["name it"]))
                .cosines(asked)[0] for card in cards]  # fmt: skip
    for at in (0, 0, 1, 2, 3, 0, 3):
        assert lexicon.Lexicon([cards[at]], rare).cosines(asked)[0] == expected[at]
    assert len(set(expected)) == 4


def test_vector_of_a_card_is_made_once_when_it_comes_again(monkeypatch):
    rare, card = _lexicon(["what is my balance"]), _told(["name it"])
    first = lexicon.Lexicon([card], rare).cosines(lexicon.terms("name it"))
    monkeypatch.setattr(lexicon.Lexicon, "_vector", None)
    assert lexicon.Lexicon([card], rare).cosines(lexicon.terms("name it")) == first
