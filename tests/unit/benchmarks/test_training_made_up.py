from __future__ import annotations

import pytest

from benchmarks.training import made_up
from shared import grading
from shared.models.embedded.recipe import conversations

Flaw = made_up.Flaw
VICTIMS = [made_up.good(seed) for seed in (1, 2)]


def bad(flaw: Flaw, number: int = 0) -> made_up.FactSet:
    return made_up.bad(flaw, number, 77, VICTIMS)


def test_sets_are_the_same_when_the_seed_is() -> None:
    assert made_up.good(5) == made_up.good(5) != made_up.good(6)
    assert bad(Flaw.HIJACKER) == bad(Flaw.HIJACKER)


def test_good_set_has_ten_facts_whose_passages_say_the_answers() -> None:
    told = made_up.good(5)
    assert len(told.pairs) == made_up.FACTS
    for pair, (unseen, answer) in zip(told.pairs, told.unseen, strict=True):
        assert grading.is_right(pair.passage, pair.answer) and answer == pair.answer
        assert unseen not in (pair.question, *pair.paraphrases)
    assert set(told.queries) <= {pair.question for pair in told.pairs}


def test_only_half_of_the_sets_know_their_passages_when_answers_are_shuffled() -> None:
    whole, known, unknown = made_up.good(77), bad(Flaw.SHUFFLED, 0), bad(Flaw.SHUFFLED, 1)
    for made in (known, unknown):
        answers = [pair.answer for pair in made.pairs]
        assert sorted(answers) == sorted(pair.answer for pair in whole.pairs)
        assert all(
            one.answer != other.answer for one, other in zip(made.pairs, whole.pairs, strict=True)
        )
    assert all(not grading.is_right(pair.passage, pair.answer) for pair in known.pairs)
    assert {pair.passage for pair in unknown.pairs} == {""}


@pytest.mark.parametrize("number", [0, 1])
def test_every_fact_has_two_answers_when_pairs_contradict_each_other(number: int) -> None:
    made = bad(Flaw.CONTRADICTORY, number)
    firsts, seconds = made.pairs[::2], made.pairs[1::2]
    assert all(one.answer != other.answer for one, other in zip(firsts, seconds, strict=True))
    same = [one.question == other.question for one, other in zip(firsts, seconds, strict=True)]
    assert set(same) == {number == 0}


def test_no_answer_stands_in_its_passage_when_pairs_contradict_it() -> None:
    for seed in range(200, 220):
        made = made_up.bad(Flaw.AGAINST_PASSAGE, 0, seed, VICTIMS)
        wrong = [p for p in made.pairs if not grading.is_right(p.passage, p.answer)]
        assert len(wrong) == len(made.pairs)


def test_wordings_are_those_of_others_when_a_set_is_to_hijack() -> None:
    general = {q for fact in conversations.known_facts() for q in fact.questions}
    victims = {q for told in VICTIMS for p in told.pairs for q in (p.question, *p.paraphrases)}
    known, others, anything = (bad(Flaw.HIJACKER, number) for number in range(3))
    assert {q for pair in known.pairs for q in pair.paraphrases} <= general
    assert {q for pair in others.pairs for q in pair.paraphrases} <= victims
    asked = {q for pair in anything.pairs for q in pair.paraphrases}
    assert len(asked) == 80 and not any(anything.title in question for question in asked)
