from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import sqlite3

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from services.factory import ledger, tables, tasks
from shared import answer_signals, errors
from tests.unit.factory import fakes

MORE = "Who founded Zorblax?"


def begun(task: tasks.TrainingTask) -> tasks.TrainingTask:
    return task.moved(tasks.TaskStatus.DISTILLING, 2000)


def failed(task: tasks.TrainingTask) -> tasks.TrainingTask:
    return task.failed("why", 2000)


def test_one_task_is_opened_when_many_threads_report_one_question(kept: ledger.Ledger) -> None:
    def report(number: int) -> tuple[tasks.TrainingTask, bool]:
        return kept.record(fakes.event(f"e{number}"), fakes.task(f"t{number}"))

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        results = list(threads.map(report, range(100)))
    assert len({task.id for task, _ in results}) == 1
    assert sum(created for _, created in results) == 1
    assert len(kept.all([], 1000)) == 1


def test_event_is_counted_once_when_it_is_delivered_twice(kept: ledger.Ledger) -> None:
    first, _ = kept.record(fakes.event("e1"), fakes.task("t1"))
    kept.change(first.id, failed)
    again, created = kept.record(fakes.event("e1"), fakes.task("t2"))
    assert (again.id, created) == ("t1", False)
    found = kept.of_event("e1")
    assert found is not None and found.id == "t1"
    assert kept.of_event("e2") is None


def test_question_joins_when_the_task_of_its_place_has_not_begun(kept: ledger.Ledger) -> None:
    kept.record(fakes.event("e1"), fakes.task("t1", topic_key="k"))
    joined, created = kept.record(fakes.event("e2"), fakes.task("t2", MORE, topic_key="k"))
    repeated, _ = kept.record(fakes.event("e3"), fakes.task("t3", MORE.lower()))
    assert (joined.id, created, repeated.id) == ("t1", False, "t1")
    assert repeated.other_queries == (MORE,)


def test_question_is_mapped_but_not_joined_when_distilling_has_begun(kept: ledger.Ledger) -> None:
    kept.record(fakes.event("e1"), fakes.task("t1", topic_key="k"))
    kept.change("t1", begun)
    mapped, created = kept.record(fakes.event("e2"), fakes.task("t2", MORE, topic_key="k"))
    assert (mapped.id, created, mapped.other_queries) == ("t1", False, ())


def test_tasks_stay_apart_when_their_places_are_unknown(kept: ledger.Ledger) -> None:
    kept.record(fakes.event("e1"), fakes.task("t1"))
    _, created = kept.record(fakes.event("e2"), fakes.task("t2", MORE))
    assert created


def test_new_task_is_opened_when_the_one_before_has_ended(kept: ledger.Ledger) -> None:
    kept.record(fakes.event("e1"), fakes.task("t1", topic_key="k"))
    kept.change("t1", failed)
    _, created = kept.record(fakes.event("e2"), fakes.task("t2", topic_key="k"))
    assert created
    assert [task.id for task in kept.open()] == ["t2"]


def test_first_task_is_returned_when_an_idempotency_key_comes_again(kept: ledger.Ledger) -> None:
    kept.add(fakes.task("t1", "salt", topic="salt"), "key")
    kept.change("t1", failed)
    again, created = kept.add(fakes.task("t2", "salt", topic="salt"), "key")
    assert (again.id, created) == ("t1", False)
    with pytest.raises(errors.AlreadyExistsError, match="idempotency key"):
        kept.add(fakes.task("t3", "pepper", topic="pepper"), "key")


@pytest.mark.parametrize("semantic_entropy", [None, 0.5])
def test_signals_are_kept_with_their_event_and_without_what_is_unknown(
    tmp_path: pathlib.Path, semantic_entropy: float | None
) -> None:
    kept = ledger.Ledger(f"sqlite:///{tmp_path / 'l.sqlite'}")
    signals = answer_signals.AnswerSignals(-0.5, 0.25, 7, True, semantic_entropy)
    kept.record(dataclasses.replace(fakes.event(), signals=signals), fakes.task())
    kept.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "l.sqlite")) as database:
        [(text,)] = database.execute("SELECT signals FROM dissonance_events").fetchall()
    row = json.loads(text)
    assert ("semantic_entropy" in row) == (semantic_entropy is not None)
    assert answer_signals.AnswerSignals.from_json(row) == signals


def test_task_is_the_same_when_the_ledger_is_opened_again(tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.sqlite'}"
    first = ledger.Ledger(url)
    full = fakes.task(other_queries=("b?",), topic_key="k", priority=5)
    first.record(fakes.event(), full)
    changed, _ = first.change(
        "t1", lambda task: begun(task).timing("distil", 9).timed("distil", 99)
    )
    first.close()
    second = ledger.Ledger(url)
    assert second.get("t1") == changed
    second.close()
    database = sqlite3.connect(tmp_path / "l.sqlite")
    updates = database.execute("SELECT status FROM task_updates ORDER BY sequence").fetchall()
    mode = database.execute("PRAGMA journal_mode").fetchone()
    database.close()
    assert updates == [("PENDING",), ("DISTILLING",)]
    assert mode == ("wal",)


def test_nothing_is_kept_when_a_change_is_refused(kept: ledger.Ledger) -> None:
    kept.record(fakes.event(), fakes.task())
    with pytest.raises(errors.PreconditionError):
        kept.change("t1", lambda task: task.moved(tasks.TaskStatus.TRAINING, 2000))
    assert kept.get("t1") == fakes.task()


def test_error_names_the_task_when_it_is_unknown(kept: ledger.Ledger) -> None:
    with pytest.raises(errors.NotFoundError, match="nobody"):
        kept.get("nobody")


def test_only_the_asked_for_are_listed_when_statuses_are_given(kept: ledger.Ledger) -> None:
    kept.record(fakes.event("e1"), fakes.task("t1"))
    kept.change("t1", failed)
    kept.record(fakes.event("e2"), fakes.task("t2"))
    assert [task.id for task in kept.all([tasks.TaskStatus.FAILED], 10)] == ["t1"]
    assert len(kept.all([], 1)) == 1


def test_only_tasks_of_some_tenants_and_of_nobody_are_listed_when_these_are_given(
    kept: ledger.Ledger,
) -> None:
    for number, tenant in enumerate(("", "north", "south")):
        kept.record(fakes.event(f"e{number}"), fakes.task(f"t{number}", tenant=tenant))
        kept.change(f"t{number}", failed)
    assert {task.id for task in kept.all([], 10, frozenset())} == {"t0"}
    assert {task.id for task in kept.all([], 10, frozenset({"south"}))} == {"t0", "t2"}
    assert [task.id for task in kept.all([], 1, frozenset())] == ["t0"]


def test_tasks_and_events_are_there_when_the_ledger_is_of_an_older_version(
    tmp_path: pathlib.Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'l.sqlite'}"
    first = ledger.Ledger(url)
    first.record(fakes.event("e1"), fakes.task("t1"))
    first.close()
    migrate(url, "0001")
    migrated = ledger.Ledger(url)
    task = migrated.get("t1")
    assert task.corrections == ()
    assert (task.tenant, task.demand, task.admitted_at_ms) == ("", 1, task.created_at_ms)
    found = migrated.of_event("e1")
    assert isinstance(found, tasks.TrainingTask) and found.id == "t1"
    migrated.dismiss(fakes.event("e2"), "why not", 5)
    assert migrated.of_event("e2") == "why not"
    with pytest.raises(errors.PreconditionError, match="why not"):
        migrated.record(fakes.event("e2"), fakes.task("t2"))
    migrated.close()


def migrate(url: str, revision: str) -> None:
    """Takes a database back to an earlier revision."""
    folder = pathlib.Path(tables.__file__).with_name("migrations")
    settings = alembic.config.Config()
    settings.set_main_option("script_location", str(folder))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        alembic.command.downgrade(settings, revision)
    engine.dispose()


def test_task_belongs_to_the_trace_of_its_first_question(kept: ledger.Ledger) -> None:
    first, second = (f"00-{number:032x}-{number:016x}-01" for number in (1, 2))
    kept.record(fakes.event("e1"), dataclasses.replace(fakes.task("t1"), traceparent=first))
    kept.record(fakes.event("e2"), dataclasses.replace(fakes.task("t2"), traceparent=second))
    assert kept.get("t1").traceparent == first
    assert [task.traceparent for task in kept.all([], 10)] == [first]


def test_counts_are_those_of_all_tasks_and_silence_that_of_open_admitted_ones(
    kept: ledger.Ledger,
) -> None:
    assert kept.counts() == {} and kept.longest_silent_since_ms() is None
    kept.record(fakes.event("e1"), fakes.task("t1"))
    assert kept.counts() == {tasks.TaskStatus.PENDING: 1}
    # It waits for its turn: that is no standstill.
    assert kept.longest_silent_since_ms() is None
    kept.change("t1", lambda task: task.admitted(5_000))
    assert kept.longest_silent_since_ms() == 5_000
    kept.change("t1", failed)
    assert kept.counts() == {tasks.TaskStatus.FAILED: 1}
    assert kept.longest_silent_since_ms() is None
