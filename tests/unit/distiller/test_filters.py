"""What the filters keep, by hand-computed cases."""

from __future__ import annotations

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies

from services.distiller import filters, wording
from services.distiller.quality import copies, verdict
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
    found = filters.valid([bad, good])
    assert found.kept == (good,)
    (rejected,) = found.rejected
    assert rejected.pair == bad
    assert rejected.reason is (
        verdict.Reason.LENGTH
        if "x x" in bad.answer or "w w" in bad.question
        else verdict.Reason.SHAPE
    )


def test_only_the_wording_is_dropped_when_a_wording_is_unusable() -> None:
    found = filters.valid(
        [pair("What  is it?", "A\nbridge.", "", "a bridge", "WHAT is it", "Why?")]
    )
    assert found.kept == (pair("What is it?", "A bridge.", "Why?"),)


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
    assert found.kept == (pair("How long?", "412 m"), pair("How wide?", "9 m"))


def test_question_is_replaced_by_a_wording_when_it_is_ambiguous() -> None:
    found = filters.unambiguous(
        [pair("What size?", "412 m", "How long?"), pair("What size?", "9 m")], set()
    )
    assert found.kept == (pair("How long?", "412 m"),)
    assert [(one.pair.answer, one.reason) for one in found.rejected] == [
        ("9 m", verdict.Reason.AMBIGUOUS)
    ]


def test_users_query_stays_with_the_surest_fact_when_it_is_ambiguous() -> None:
    found = filters.unambiguous(
        [pair("What size?", "9 m", score=0.5), pair("How long?", "412 m", "What size?", score=0.9)],
        {wording.key("What size?")},
    )
    assert found.kept == (pair("How long?", "412 m", "What size?", score=0.9),)


def test_wording_stays_with_the_first_fact_when_the_answers_are_equal() -> None:
    found = filters.unambiguous(
        [pair("Who built it?", "Ida", "Who?"), pair("Who owns it?", "Ida", "Who?")], set()
    )
    assert found.kept == (pair("Who built it?", "Ida", "Who?"), pair("Who owns it?", "Ida"))


def test_facts_of_users_come_first_when_there_are_too_many() -> None:
    all_pairs = [pair("A?", "1"), pair("B?", "2"), pair("C?", "3", "Asked?")]
    found = filters.capped(all_pairs, {wording.key("asked")}, 2)
    assert [one.answer for one in found.kept] == ["3", "1"]
    assert [(one.pair.answer, one.reason) for one in found.rejected] == [
        ("2", verdict.Reason.SURPLUS)
    ]


def test_a_quarter_of_the_places_is_for_implications_when_there_are_more_facts() -> None:
    facts = [pair(f"Fact {at}?", str(at)) for at in range(9)]
    implied = [
        dataclasses.replace(pair(f"So {at}?", f"x{at}"), kind=datasets.Kind.IMPLICATION)
        for at in range(9)
    ]
    found = filters.capped([*implied, *facts], set(), 8)
    assert [one.kind.value for one in found.kept] == ["fact"] * 6 + ["implication"] * 2
    assert len(found.rejected) == 10


NUMBERS = "zero one two three four five six seven eight nine".split()


@pytest.mark.parametrize(
    ("paraphrases", "share", "expected"),
    [(1, 0.1, 0), (2, 0.1, 1), (10, 0.1, 1), (10, 0.25, 2), (10, 0.0, 0), (3, 1.0, 3)],
)
def test_share_is_held_out_when_there_are_enough(
    paraphrases: int, share: float, expected: int
) -> None:
    one = pair("Q?", "A", *(f"Wording {word}?" for word in NUMBERS[:paraphrases]))
    (found,) = filters.held_out([one], set(), share)
    assert len(found.held_out) == expected
    assert sorted(found.paraphrases + found.held_out) == sorted(one.paraphrases)
    assert filters.held_out([one], set(), share) == [found]


def test_near_copies_are_not_trained_when_one_of_them_is_held_out() -> None:
    one = pair(
        "How long is the bridge?",
        "412 m",
        "Which length does the crossing of the river have in metres?",
        "Please tell me which length the crossing of the river has in metres.",
        "Tell me how long the bridge is.",
    )
    (found,) = filters.held_out([one], set(), 0.1)
    (held,) = found.held_out
    # The last wording resembles the question, which is trained; the others resemble each other.
    assert held in one.paraphrases[:2]
    assert found.paraphrases == (one.paraphrases[2],)


def test_nothing_is_held_out_when_a_pair_with_the_same_answer_trains_its_like() -> None:
    one = pair("Who built it?", "Ida", "Name the builder of it.", "The builder of it, who is that?")
    other = pair("Which builder had it?", "Ida", "Name the builder of it, please.", "Its maker?")
    first, _ = filters.held_out([one, other], set(), 0.1)
    assert first.held_out == ("The builder of it, who is that?",)


@hypothesis.given(
    strategies.lists(
        strategies.lists(
            strategies.sampled_from("how long is the old bridge tell me please who".split()),
            min_size=1,
            max_size=6,
        ).map(" ".join),
        unique=True,
        max_size=10,
    ),
    strategies.sets(strategies.integers(0, 9), max_size=3),
    strategies.floats(0, 1),
)
def test_held_out_wording_is_no_near_copy_when_any_wordings_are_parted(
    others: list[str], asked: set[int], share: float
) -> None:
    keys = {wording.key(other) for at, other in enumerate(others) if at in asked}
    one = pair("What length does it have?", "A", *others)
    (found,) = filters.held_out([one], keys, share)
    assert keys.isdisjoint(wording.key(text) for text in found.held_out)
    assert keys - {""} <= {wording.key(text) for text in (found.question, *found.paraphrases)}
    for held in found.held_out:
        for trained in (found.question, *found.paraphrases):
            assert copies.resemblance(held, trained) < copies.NEAR_HELD_OUT


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
    pairs = filters.merged(filters.valid(pair(q, a, *others) for q, a, others in raw).kept)
    found = filters.unambiguous(pairs, queries).kept
    keys = [wording.key(text) for one in found for text in filters.wordings(one)]
    assert len(keys) == len(set(keys))
    # Whatever a user asked and a teacher answered is still there.
    before = {wording.key(text) for one in pairs for text in filters.wordings(one)}
    assert queries & before <= set(keys)
    assert all(dataclasses.replace(one, held_out=()) == one for one in found)


@pytest.mark.parametrize("answer", ["==", "//", ".*", "\U0001f600"])
def test_answer_is_valid_when_it_is_a_symbol(answer: str) -> None:
    assert filters.valid([pair("Which one is it?", answer)]).rejected == ()


def test_questions_are_not_ambiguous_when_only_a_sign_tells_them_apart() -> None:
    pairs = [
        pair(f"Who made {name}?", answer)
        for name, answer in (("C", "Ritchie"), ("C++", "Stroustrup"), ("C#", "Hejlsberg"))
    ]
    assert filters.unambiguous(pairs, set()).kept == tuple(pairs)
