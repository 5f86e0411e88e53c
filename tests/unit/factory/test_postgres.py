"""The factory's own tables on PostgreSQL, where its programs are on this machine."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from services.factory import (
    clusters,
    feedback,
    feedback_book,
    ledger,
    nights,
    partners,
    published,
    tables,
    tasks,
)
from tests import postgres
from tests.unit.factory import fakes


@pytest.fixture
def kept() -> Iterator[ledger.Ledger]:
    programs = postgres.programs()
    if programs is None:
        pytest.skip("initdb is not on this machine")
    with postgres.running(programs) as url:
        opened = ledger.Ledger(url)
        yield opened
        opened.close()


def test_one_night_takes_tasks_up_when_two_factories_gather_at_once(kept: ledger.Ledger) -> None:
    for number in range(4):
        kept.add(fakes.task(f"t{number}", f"Question {number}?", priority=1), "")
    sleep = nights.Sleep(3, "waits for the night")
    assert kept.admit(2000, lambda waiting, _: [""] * len(waiting), sleep)[0] == []
    book = nights.NightBook(kept.database)
    assert [task.detail for task in book.waiting(sleep, 5000)] == ["waits for the night"] * 4
    plan = [clusters.Skill(("t0", "t1"), "d"), clusters.Skill(("t2", "t3"), "d")]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: book.gather("n", 3000, plan, 4000), range(4)))
    assert {night for night, _ in found} == {nights.Night("n", 3000, 4000, 4, tuple(plan))}
    assert sorted(len(changed) for _, changed in found) == [0, 0, 0, 4]
    started, _ = kept.admit(5000, lambda waiting, _: [""] * len(waiting), sleep)
    assert [task.id for task in started] == ["t0", "t2"]
    _, changed = kept.change("t0", lambda task: task.failed("no teacher", 6000))
    assert [(task.id, task.status) for task in changed] == [
        ("t0", tasks.TaskStatus.FAILED),
        ("t1", tasks.TaskStatus.FAILED),
    ]


def test_feedback_is_counted_once_when_two_factories_take_it_at_once(kept: ledger.Ledger) -> None:
    book = feedback_book.FeedbackBook(kept.database)
    card = "zorblax@" + "a" * 64
    given = feedback.Feedback("k", fakes.QUESTION, "green", card, correction="red", caller="ann")

    def record(number: int) -> feedback_book.Outcome:
        fresh = fakes.task(f"t{number}", corrections=given.corrections)
        return book.record(given, 3000, fresh)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(record, range(4)))
    assert len({one.task.id for one in found if one.task}) == 1
    assert sum(one.created for one in found) == 1 and len(kept.all([], 10)) == 1
    assert kept.all([], 10)[0].corrections == given.corrections
    assert book.counts("zorblax") == book.counts(card) == feedback.Counts(0, 1)
    newer = dataclasses.replace(given, idempotency_key="k2", correction="grey")
    outcome = book.record(newer, 4000, fakes.task("t9", corrections=newer.corrections))
    assert outcome.task is not None and outcome.task.corrections == newer.corrections
    with kept.database.read() as connection:
        rows = connection.execute(sa.select(tables.feedback).order_by("sequence")).mappings().all()
    assert [(row["caller"], row["correction"]) for row in rows] == [("ann", "red"), ("ann", "grey")]
    assert [row["contradicts"] for row in rows] == [None, rows[0]["sequence"]]
    assert [row["task_id"] for row in rows] == [outcome.task.id] * 2


def test_doubted_cards_are_due_when_enough_questions_were_called_wrong(kept: ledger.Ledger) -> None:
    kept.add(fakes.task(), "")
    cards, card = published.CardBook(kept.database), "zorblax@" + "a" * 64
    cards.keep(published.PublishedCard(card, "t1", "d" * 64, (), 5))
    book = feedback_book.FeedbackBook(kept.database)
    for number in range(2):
        given = feedback.Feedback(f"k{number}", f"Question {number}?", card=card)
        book.record(given, 6 + number, None, "counted")
    assert [len(cards.unchecked_since(5, wrongs, 9)) for wrongs in (0, 2, 3)] == [0, 1, 0]
    assert cards.unchecked_since(5, 2, 5) == []
    cards.checked(card, 6)
    assert cards.unchecked_since(5, 2, 9) == []


def test_card_is_found_as_it_was_kept_when_it_was_published(kept: ledger.Ledger) -> None:
    kept.add(fakes.task(), "")
    book = published.CardBook(kept.database)
    triggers = (partners.Trigger(fakes.QUESTION, fakes.ANSWER),)
    card = published.PublishedCard("zorblax@abc", "t1", "d" * 64, triggers, 5)
    for _ in range(2):
        book.keep(card)
    assert book.unchecked_since(6) == [card] and book.unchecked_since(5) == []
    book.checked("zorblax@abc", 9)
    found = book.find("zorblax@abc")
    assert found is not None and found.checked_at_ms == 9
    assert book.find("zorblax@def") is None
