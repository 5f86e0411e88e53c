"""Checks that compare meanings, with the real embedder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from services.distiller import vectors
from services.distiller.quality import agreement, copies, meaning, placement, verdict
from shared.flight import datasets
from shared.models import embedder as embedders
from tests.unit.distiller.fakes import pair

PASSAGE = """Orun
The lighthouse at Orun stands on a cliff above the harbour. It was built in 1871 by Ida Kroll.
Visitors climb 164 steps to the gallery. The ferry to the mainland costs 3 crowns and leaves at
noon. The town's museum keeps the oldest anchor of the coast. Its baker is famous for rye bread."""


@pytest.fixture(scope="module")
def embed() -> vectors.AsyncEmbed:
    embedder = embedders.Embedder()

    async def embed_texts(texts: Sequence[str]) -> vectors.Vectors:
        return embedder.embed(texts)

    return embed_texts


async def _lookup(embed: vectors.AsyncEmbed, pairs: Sequence[datasets.QAPair]) -> agreement.Lookup:
    texts = agreement.texts(pairs)
    return dict(zip(texts, await embed(texts), strict=True))


def _answers(found: verdict.Sifted) -> list[str]:
    return [one.answer for one in found.kept]


async def test_pairs_become_one_when_they_ask_and_say_the_same(embed: vectors.AsyncEmbed) -> None:
    pairs = [
        pair("When was the Orun lighthouse built?", "1871"),
        pair("In what year was the Orun lighthouse built?", "in 1871", "Year of Orun?"),
        pair("Who built the Orun lighthouse?", "Ida Kroll"),
    ]
    found = agreement.unrepeated(pairs, await _lookup(embed, pairs))
    assert _answers(found) == ["1871", "Ida Kroll"]
    assert found.kept[0].paraphrases == (
        "In what year was the Orun lighthouse built?",
        "Year of Orun?",
    )
    assert [one.reason for one in found.rejected] == [verdict.Reason.DUPLICATE]


async def test_statement_is_dropped_when_it_was_made_before(embed: vectors.AsyncEmbed) -> None:
    told = (
        "Items from Asia, such as porcelain, cloth, and wallpaper, were imported and exhibited.",
        "Asian imports such as porcelain, cloth, and wallpaper are exhibited there.",
        "Items from Asia, such as porcelain, cloth, and wallpaper, were not imported.",
    )
    pairs = [
        dataclasses.replace(pair(f"So, {at}?", text), kind=datasets.Kind.IMPLICATION)
        for at, text in enumerate(told)
    ]
    found = agreement.unrepeated(pairs, await _lookup(embed, pairs))
    assert _answers(found) == [told[0], told[2]]


async def test_both_are_rejected_when_pairs_contradict_each_other(
    embed: vectors.AsyncEmbed,
) -> None:
    pairs = [
        pair("When was the Orun lighthouse built?", "1871"),
        pair("In what year was the Orun lighthouse built?", "1902"),
        pair("Who built the Orun lighthouse?", "Ida Kroll"),
        pair("Where was the builder of Orun born?", "Varnholt"),
    ]
    found = agreement.consistent(pairs, await _lookup(embed, pairs))
    assert _answers(found) == ["Ida Kroll", "Varnholt"]
    assert {one.reason for one in found.rejected} == {verdict.Reason.CONTRADICTED}
    assert "1902" in found.rejected[0].detail


async def test_surer_pair_stays_when_another_contradicts_it(embed: vectors.AsyncEmbed) -> None:
    pairs = [
        pair("When was the Orun lighthouse built?", "1871", score=0.9),
        pair("In what year was the Orun lighthouse built?", "1902", score=0.5),
    ]
    found = agreement.consistent(pairs, await _lookup(embed, pairs))
    assert _answers(found) == ["1871"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Who built the lighthouse?", "Ida Kroll"), ("When was the lighthouse built?", "1871")),
        (("How tall is the tower in 1871?", "30 m"), ("How tall is the tower in 1902?", "38 m")),
        (("Who built it at Orun?", "Ida Kroll"), ("Who built it at Orun?", "It was Ida Kroll.")),
        (("What was the first term?", "rebirth"), ("What was the last term?", "renewal")),
        (("When does the pool open?", "7:00"), ("When does the pool close?", "21:00")),
        (
            ("What is the read limit of the API in a minute?", "600 calls"),
            ("What is the write limit of the API in a minute?", "60 calls"),
        ),
        (("When does it open on monday?", "9:00"), ("When does it open on sunday?", "11:00")),
    ],
)
async def test_pairs_are_kept_when_they_only_look_like_contradictions(
    one: tuple[str, str], other: tuple[str, str], embed: vectors.AsyncEmbed
) -> None:
    pairs = [pair(*one), pair(*other)]
    assert agreement.consistent(pairs, await _lookup(embed, pairs)).rejected == ()


def test_questions_differ_when_only_a_sign_tells_them_apart() -> None:
    assert meaning.same_question("Who made C#?", "who made the C#", 0.97)
    assert not meaning.same_question("Who made C++?", "Who made C#?", 0.97)
    assert not meaning.same_question("What melts at -40 degrees?", "What melts at 40?", 0.97)


async def test_near_miss_is_kept_when_its_fact_has_another_answer(
    embed: vectors.AsyncEmbed,
) -> None:
    pairs = [
        pair("When was the lighthouse at Orun built?", "1871"),
        dataclasses.replace(
            pair("When was the lighthouse at Oruna built?", "1902"), kind=datasets.Kind.CONTRAST
        ),
    ]
    assert agreement.consistent(pairs, await _lookup(embed, pairs)).rejected == ()


FACTS = [
    ("When was the lighthouse built?", "1871"),
    ("How many steps lead to the gallery?", "164"),
    ("What does the ferry to the mainland cost?", "3 crowns"),
    ("What is the baker famous for?", "rye bread"),
    ("What does the museum keep?", "the oldest anchor"),
]


def _facts(answers: Sequence[str]) -> list[datasets.QAPair]:
    return [
        dataclasses.replace(pair(question, answer), passage=PASSAGE)
        for (question, _), answer in zip(FACTS, answers, strict=True)
    ]


async def test_facts_are_kept_when_their_answers_stand_where_they_belong(
    embed: vectors.AsyncEmbed,
) -> None:
    pairs = _facts([answer for _, answer in FACTS])
    assert (await placement.placed(pairs, embed)).kept == tuple(pairs)


async def test_facts_are_rejected_when_their_answers_were_mixed_up(
    embed: vectors.AsyncEmbed,
) -> None:
    answers = [answer for _, answer in FACTS]
    found = await placement.placed(_facts([*answers[1:], answers[0]]), embed)
    assert len(found.rejected) >= 4
    assert {one.reason for one in found.rejected} == {verdict.Reason.MISPLACED}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("None", "It has no moons."),
        ("It has no moons.", "It has no moons."),
        ("Zero", "It has no moons."),
        ("several", "It has several moons."),
    ],
)
async def test_fact_is_kept_when_it_counts_without_a_number(
    embed: vectors.AsyncEmbed, answer: str, told: str
) -> None:
    passage = f"Orun\nThe planet is small and red. {told} Its day is long. It is cold."
    one = dataclasses.replace(pair("How many moons has it?", answer), passage=passage)
    assert (await placement.placed([one], embed)).rejected == ()
    year = dataclasses.replace(one, question="In what year was it found?")
    assert (await placement.placed([year], embed)).kept == ()


async def test_implication_is_not_looked_for_when_its_passage_does_not_say_it(
    embed: vectors.AsyncEmbed,
) -> None:
    one = dataclasses.replace(_facts(["x"] * 5)[0], kind=datasets.Kind.IMPLICATION)
    assert (await placement.placed([one], embed)).kept == (one,)


def test_wordings_are_near_copies_when_only_politeness_differs() -> None:
    asked = "When was the Orun lighthouse built?"
    assert copies.resemblance(asked, "Please tell me when the Orun lighthouse was built.") == 1.0
    assert copies.resemblance(asked, "In which year did they put up the light at Orun?") < 0.3
    assert copies.distinct([asked, "when was the Orun lighthouse built", "Year of Orun?"]) == [
        asked,
        "Year of Orun?",
    ]
