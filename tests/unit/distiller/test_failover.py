"""Who is asked when teachers fail."""

from __future__ import annotations

import dataclasses

import pytest

from services.distiller.providers import base, failover, failures
from shared import errors
from tests.unit.distiller import fakes

REQUEST = base.QARequest(topic="", queries=("Q?",))
PAIR = fakes.pair("Q?", "A")
DOWN = errors.TeacherUnavailableError("out of quota")


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_order_is_kept_when_the_first_answers() -> None:
    first, second = fakes.Teacher([PAIR], "a"), fakes.Teacher([], "b")
    chain = failover.Failover([first, second], _Clock())
    assert await chain.generate_qa(REQUEST) == [PAIR]
    assert (chain.name, second.asked) == ("a > b", [])


async def test_teacher_is_left_alone_when_it_was_unavailable_three_times() -> None:
    clock = _Clock()
    first, second = fakes.Teacher([], "a", DOWN), fakes.Teacher([PAIR], "b")
    chain = failover.Failover([first, second], clock)
    for now, asked in ((0.0, 1), (1.0, 2), (2.0, 3), (3.0, 3), (31.9, 3), (32.1, 4)):
        clock.now = now
        assert await chain.generate_qa(REQUEST) == [PAIR]
        assert len(first.asked) == asked
    assert [one.state.value for one in chain.circuits()] == ["open", "closed"]


async def test_teacher_is_still_left_alone_when_places_were_found_meanwhile() -> None:
    first = fakes.Teacher([], "a", failures.BarredError("bad key"))
    chain = failover.Failover([first, fakes.Teacher([PAIR], "b")], _Clock())
    await chain.generate_qa(REQUEST)
    await chain.locate(["Q?"])
    await chain.generate_qa(REQUEST)
    assert len(first.asked) == 1


async def test_next_teacher_is_asked_when_the_first_is_over_budget() -> None:
    first = fakes.Teacher([], "a", errors.BudgetError("raise day_tokens"))
    chain = failover.Failover([first, fakes.Teacher([PAIR], "b")], _Clock())
    for _ in range(4):
        assert await chain.generate_qa(REQUEST) == [PAIR]
    # The teacher is well: with a new day it may be asked at once.
    assert len(first.asked) == 4


async def test_error_names_the_budget_when_nobody_else_can_teach() -> None:
    chain = failover.Failover(
        [
            fakes.Teacher([], "a", errors.BudgetError("raise day_tokens")),
            fakes.Teacher([], "b", errors.NotFoundError("nothing near")),
        ],
        _Clock(),
    )
    with pytest.raises(errors.BudgetError, match="a: raise day_tokens; b: nothing near"):
        await chain.generate_qa(REQUEST)


async def test_teacher_is_asked_every_time_when_it_only_refused() -> None:
    first = fakes.Teacher([], "a", errors.TeacherError("refused"))
    chain = failover.Failover([first, fakes.Teacher([PAIR], "b")], _Clock())
    await chain.generate_qa(REQUEST)
    await chain.generate_qa(REQUEST)
    assert len(first.asked) == 2


async def test_all_reasons_are_told_when_all_are_down() -> None:
    chain = failover.Failover(
        [fakes.Teacher([], "a", DOWN), fakes.Teacher([], "b", errors.TeacherError("bad key"))],
        _Clock(),
    )
    for _ in range(2):
        with pytest.raises(errors.TeacherUnavailableError, match="a: out of quota; b: bad key"):
            await chain.generate_qa(REQUEST)


async def test_error_is_final_when_no_reason_will_pass() -> None:
    chain = failover.Failover([fakes.Teacher([], "a", errors.TeacherError("bad key"))], _Clock())
    with pytest.raises(errors.TeacherError, match="a: bad key"):
        await chain.generate_qa(REQUEST)


async def test_nobody_else_is_asked_when_the_first_knows_nothing() -> None:
    second = fakes.Teacher([PAIR], "b")
    chain = failover.Failover(
        [fakes.Teacher([], "a", errors.NotFoundError("nothing near")), second], _Clock()
    )
    with pytest.raises(errors.NotFoundError, match="nothing near"):
        await chain.generate_qa(REQUEST)
    assert second.asked == []


async def test_retry_is_worth_it_when_the_one_who_might_know_is_down() -> None:
    chain = failover.Failover(
        [
            fakes.Teacher([], "a", DOWN),
            fakes.Teacher([], "b", errors.NotFoundError("nothing near")),
        ],
        _Clock(),
    )
    with pytest.raises(errors.TeacherUnavailableError, match="out of quota; b: nothing near"):
        await chain.generate_qa(REQUEST)


async def test_nothing_is_known_when_neither_the_wanted_teacher_nor_the_next_knows() -> None:
    teachers = [
        fakes.Teacher([], name, errors.NotFoundError(f"{name} has nothing")) for name in "abc"
    ]
    chain = failover.Failover(teachers, _Clock())
    for wanted, asked in (("b", "b: b has nothing; a: a has nothing"), ("a", "a: a .*b: b has")):
        with pytest.raises(errors.NotFoundError, match=asked):
            await chain.generate_qa(dataclasses.replace(REQUEST, teacher=wanted))
    assert teachers[2].asked == []


async def test_title_comes_from_the_one_who_answered_when_there_are_several() -> None:
    chain = failover.Failover(
        [fakes.Teacher([], "a", title="A"), fakes.Teacher([], "b", title="B")], _Clock()
    )
    told = await chain.subject(REQUEST, [fakes.pair("Q?", "A", teacher="b")])
    assert told == base.Subject("B")
    assert await chain.subject(REQUEST, []) == base.Subject()
    await chain.aclose()


@pytest.mark.parametrize(
    ("wanted", "first"), [("", "a:m"), ("b", "b:n"), ("b:n", "b:n"), ("b:m", "a:m"), ("c", "a:m")]
)
async def test_wanted_teacher_is_asked_first_when_it_is_one_of_the_chain(
    wanted: str, first: str
) -> None:
    teachers = {name: fakes.Teacher([PAIR], name) for name in ("a:m", "b:n")}
    chain = failover.Failover(list(teachers.values()), _Clock())
    await chain.generate_qa(dataclasses.replace(REQUEST, teacher=wanted))
    assert [name for name, teacher in teachers.items() if teacher.asked] == [first]


async def test_others_are_asked_in_their_order_when_the_wanted_one_knows_nothing() -> None:
    first = fakes.Teacher([PAIR], "a")
    second = fakes.Teacher([], "b", errors.NotFoundError("no document says that"))
    chain = failover.Failover([first, second], _Clock())
    assert await chain.generate_qa(dataclasses.replace(REQUEST, teacher="b")) == [PAIR]
    assert len(second.asked) == 1
