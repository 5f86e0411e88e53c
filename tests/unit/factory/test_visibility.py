"""What callers see of tasks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from services.factory import feedback, tasks, visibility
from shared.pb import types_pb2
from tests.unit.factory import fakes

NORTH = frozenset({"north"})
MORE = ("What else does it trade?",)
WORDS = {
    "domain": "trade",
    "error": "says so",
    "detail": "asks",
    "repository": "secret",
    "commit_id": "c",
}


def _task(tenant: str, **fields: Any) -> tasks.TrainingTask:
    told = {"other_queries": MORE, "card": "trade@1", "progress": 0.5} | WORDS | fields
    return fakes.task(tenant=tenant, **told)


def test_all_is_seen_when_a_caller_sees_all_tenants() -> None:
    found = visibility.seen(_task("north"), None, True)
    assert (found.trigger_query, tuple(found.other_queries)) == (fakes.QUESTION, MORE)


@pytest.mark.parametrize("tenant", ["", "north"])
def test_own_task_is_seen_whole_when_no_question_came_later(tenant: str) -> None:
    whole = visibility.seen(_task(tenant, other_queries=()), None, True)
    assert visibility.seen(_task(tenant, other_queries=()), NORTH, True) == whole
    assert whole.detail and whole.error


@pytest.mark.parametrize("tenant", ["", "north"])
@pytest.mark.parametrize(
    "later",
    [
        {"other_queries": MORE},
        {"other_queries": (), "corrections": (feedback.Correction(fakes.QUESTION, "red salt"),)},
        {"other_queries": (), "joined_into": "t0"},
    ],
)
def test_what_came_later_and_what_quotes_it_is_not_seen_when_it_may_be_others(
    tenant: str, later: dict[str, Any]
) -> None:
    task = _task(tenant, **later)
    found = visibility.seen(task, NORTH, True)
    assert found.trigger_query == fakes.QUESTION and found.domain == "trade"
    assert not found.other_queries and not found.detail
    assert found.error == visibility.REASON_HIDDEN
    # Where there are no tenants, all of it is nobody's.
    whole = visibility.seen(task, None, True)
    assert visibility.seen(_task("", **later), frozenset(), mixed=False).detail == whole.detail
    assert visibility.seen(dataclasses.replace(task, error=""), NORTH, True).error == ""


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("tenants", [(), ("south",)])
def test_others_see_how_a_task_goes_and_no_words(tenants: tuple[str, ...], mixed: bool) -> None:
    found = visibility.seen(_task("north"), frozenset(tenants), mixed)
    assert found == types_pb2.TrainingTask(
        id="t1",
        priority=tasks.DEFAULT_PRIORITY,
        status=types_pb2.PENDING,
        card="trade@1",
        error=visibility.REASON_HIDDEN,
        progress=0.5,
        created_at_ms=1000,
        updated_at_ms=1000,
        demand=1,
    )
