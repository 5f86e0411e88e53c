"""When two answers of one teacher agree."""

from __future__ import annotations

import dataclasses

import pytest

from services.distiller.providers import base
from services.distiller.quality import judge, verdict
from shared.flight import datasets
from tests.unit.distiller.fakes import pair


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("412 m", "It is 412 m long.", 1.0),
        ("1871", "1902", 0.0),
        ("yes", "No, it is not.", 0.0),
        ("Ida Kroll", "Eve Stone", 0.0),
        ("a red tower", "a tower of stone", 2 * 1 / (2 + 3)),
        ("oil", "electricity", 0.0),
        ("9 am", "09:00", 1.0),
        ("3 pm", "15:00", 1.0),
        ("3 pm", "It opens at 15:00.", 1.0),
        ("3 pm", "03:00", 0.0),
        ("noon to 3:30 p.m.", "noon to 15:30", 1.0),
        ("1,200 km", "1200 kilometres", 1.0),
        ("20 °C", "20 degrees Celsius", 1.0),
        ("5 km", "5 miles", 0.5),
        ("30 crowns", "30 kronor", 1.0),
        ("30 crowns", "31 kronor", 0.0),
        ("四百米", "桥有四百米长", 2 * 3 / (3 + 6)),
        ("四百米", "伊達政宗", 0.0),
        ("Yes", "Ida Kroll", 0.0),
        ("Yes", "It is allowed.", None),
        ("No", "It is allowed on weekdays alone.", None),
    ],
)
def test_agreement_is_the_share_of_words_when_nothing_clashes(
    one: str, other: str, expected: float | None
) -> None:
    assert judge.agreement(one, other) == pytest.approx(expected)
    assert judge.agreement(other, one) == pytest.approx(expected)


async def test_questions_are_asked_by_passage_when_there_are_many() -> None:
    calls: list[base.QARequest] = []

    async def ask(call: base.QARequest) -> list[datasets.QAPair]:
        calls.append(call)
        return [pair(query, "x") for query in call.queries]

    pairs = [pair(f"Question {at}?", "x") for at in range(5)]
    pairs += [dataclasses.replace(pair("Question 0?", "y"), passage="P")]
    found = await judge.agreed(pairs, ask, 3, 0.5)
    assert [(call.passage, len(call.queries)) for call in calls] == [("", 3), ("", 2), ("P", 1)]
    assert found.kept == tuple(pairs[:5])
    assert [one.reason for one in found.rejected] == [verdict.Reason.DOUBTED]


async def test_each_pair_is_judged_by_the_teacher_who_told_it() -> None:
    calls: list[base.QARequest] = []

    async def ask(call: base.QARequest) -> list[datasets.QAPair]:
        calls.append(call)
        return [pair(query, call.teacher) for query in call.queries]

    pairs = [pair("A?", "ann", teacher="ann"), pair("B?", "bob", teacher="bob"), pair("C?", "x")]
    found = await judge.agreed(pairs, ask, 8, 0.5)
    assert [(call.teacher, call.queries) for call in calls] == [
        ("ann", ("A?",)), ("bob", ("B?",)), ("fake", ("C?",)),
    ]  # fmt: skip
    assert found.kept == tuple(pairs[:2])


async def test_pair_is_kept_when_the_second_answer_tells_nothing() -> None:
    async def ask(call: base.QARequest) -> list[datasets.QAPair]:
        return [pair(query, "It is allowed.") for query in call.queries]

    one = pair("May dogs come in?", "Yes")
    assert (await judge.agreed([one], ask, 8, 0.5)).kept == (one,)


async def test_teacher_is_not_asked_again_when_it_would_say_the_same() -> None:
    async def ask(call: base.QARequest) -> list[datasets.QAPair]:
        assert call.queries == ("Who?",)
        return []

    quoted = dataclasses.replace(pair("How?", "So"), teacher="documents")
    found = await judge.agreed([quoted, pair("Who?", "He")], ask, 8, 0.5, {"documents"})
    assert found.kept == (quoted,)
