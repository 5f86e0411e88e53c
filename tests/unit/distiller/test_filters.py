"""What the filters keep, by hand-computed cases."""

from __future__ import annotations

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies

from services.distiller import filters, wording
from shared.flight import datasets
from tests.unit.distiller.fakes import pair


@pytest.mark.parametrize(
    "bad",
    [
        pair("", "x"),
        pair("?!", "x"),
        pair("What?", " "),
        pair("Varnholt", "varnholt."),
        pair("What is it?", "x " * 201),
        pair("w " * 201, "x"),
    ],
)
def test_pair_is_dropped_when_it_is_unusable(bad: datasets.QAPair) -> None:
    good = pair("What is it?", "A bridge.")
    assert filters.valid([bad, good]) == [good]


def test_only_the_wording_is_dropped_when_a_wording_is_unusable() -> None:
    found = filters.valid(
        [pair("What  is it?", "A\nbridge.", "", "a bridge", "WHAT is it", "Why?")]
    )
    assert found == [pair("What is it?", "A bridge.", "Why?")]


def test_pairs_are_merged_when_they_share_a_wording_and_the_answer() -> None:
    found = filters.merged(
        [pair("How long?", "412 m", "What length?"), pair("what length", "412 M.", "Which length?")]
    )
    assert found == [pair("How long?", "412 m", "What length?", "Which length?")]


def test_pairs_stay_apart_when_they_share_the_answer_alone() -> None:
    both = [pair("Who built it?", "Ida Kroll"), pair("Who owns it?", "Ida Kroll")]
    assert filters.merged(both) == both


def test_wording_leaves_both_facts_when_their_answers_differ() -> None:
    found = filters.unambiguous(
        [pair("How long?", "412 m", "What size?"), pair("How wide?", "9 m", "what size")], set()
    )
    assert found == [pair("How long?", "412 m"), pair("How wide?", "9 m")]


def test_question_is_replaced_by_a_wording_when_it_is_ambiguous() -> None:
    found = filters.unambiguous(
        [pair("What size?", "412 m", "How long?"), pair("What size?", "9 m")], set()
    )
    assert found == [pair("How long?", "412 m")]


def test_users_query_stays_with_the_surest_fact_when_it_is_ambiguous() -> None:
    found = filters.unambiguous(
        [pair("What size?", "9 m", score=0.5), pair("How long?", "412 m", "What size?", score=0.9)],
        {wording.key("What size?")},
    )
    assert found == [pair("How long?", "412 m", "What size?", score=0.9)]


def test_wording_stays_with_the_first_fact_when_the_answers_are_equal() -> None:
    found = filters.unambiguous(
        [pair("Who built it?", "Ida", "Who?"), pair("Who owns it?", "Ida", "Who?")], set()
    )
    assert found == [pair("Who built it?", "Ida", "Who?"), pair("Who owns it?", "Ida")]


def test_facts_of_users_come_first_when_there_are_too_many() -> None:
    all_pairs = [pair("A?", "1"), pair("B?", "2"), pair("C?", "3", "Asked?")]
    found = filters.capped(all_pairs, {wording.key("asked")}, 2)
    assert [one.answer for one in found] == ["3", "1"]


@pytest.mark.parametrize(
    ("paraphrases", "share", "expected"),
    [(3, 0.1, 0), (4, 0.1, 1), (10, 0.1, 1), (10, 0.25, 2), (10, 0.0, 0), (3, 1.0, 3)],
)
def test_share_is_held_out_when_there_are_enough(
    paraphrases: int, share: float, expected: int
) -> None:
    one = pair("Q?", "A", *(f"Wording {at}?" for at in range(paraphrases)))
    found = filters.held_out(one, set(), share)
    assert len(found.held_out) == expected
    assert sorted(found.paraphrases + found.held_out) == sorted(one.paraphrases)
    assert filters.held_out(one, set(), share) == found


@hypothesis.given(
    strategies.lists(strategies.sampled_from("abcdefghij"), unique=True, max_size=10),
    strategies.sets(strategies.sampled_from("abcdefghij")),
    strategies.floats(0, 1),
)
def test_users_query_is_always_trained_when_wordings_are_held_out(
    others: list[str], queries: set[str], share: float
) -> None:
    keys = {wording.key(f"x{query}") for query in queries}
    one = pair("Q?", "A", *(f"x{other}" for other in others))
    found = filters.held_out(one, keys, share)
    assert keys.isdisjoint(wording.key(text) for text in found.held_out)


@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.text("abc ?", max_size=4),
            strategies.text("xyz ", max_size=2),
            strategies.lists(strategies.text("abc ?", max_size=4), max_size=4),
        ),
        max_size=8,
    ),
    strategies.sets(strategies.text("abc", min_size=1, max_size=3), max_size=4),
)
def test_no_wording_stands_twice_when_pairs_were_filtered(
    raw: list[tuple[str, str, list[str]]], queries: set[str]
) -> None:
    pairs = filters.merged(filters.valid(pair(q, a, *others) for q, a, others in raw))
    found = filters.unambiguous(pairs, queries)
    keys = [wording.key(text) for one in found for text in filters.wordings(one)]
    assert len(keys) == len(set(keys))
    # Whatever a user asked and a teacher answered is still there.
    before = {wording.key(text) for one in pairs for text in filters.wordings(one)}
    assert queries & before <= set(keys)
    assert all(dataclasses.replace(one, held_out=()) == one for one in found)
