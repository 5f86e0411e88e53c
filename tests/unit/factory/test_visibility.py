"""What callers see of tasks."""

from __future__ import annotations

import pytest

from services.factory import tasks, visibility
from shared.pb import types_pb2
from tests.unit.factory import fakes

MORE = ("What else does it trade?",)
WORDS = {
    "domain": "trade",
    "error": "says so",
    "detail": "asks",
    "repository": "secret",
    "commit_id": "c",
}


def _task(tenant: str) -> tasks.TrainingTask:
    return fakes.task(tenant=tenant, other_queries=MORE, card="trade@1", progress=0.5, **WORDS)


def test_all_is_seen_when_a_caller_sees_all_tenants() -> None:
    found = visibility.seen(_task("north"), None)
    assert (found.trigger_query, tuple(found.other_queries)) == (fakes.QUESTION, MORE)


@pytest.mark.parametrize("tenant", ["", "north"])
def test_questions_that_came_later_are_not_seen_when_they_may_be_others(tenant: str) -> None:
    found = visibility.seen(_task(tenant), frozenset({"north"}))
    assert found.trigger_query == fakes.QUESTION and not found.other_queries
    assert {name: getattr(found, name) for name in WORDS} == WORDS


@pytest.mark.parametrize("tenants", [(), ("south",)])
def test_others_see_how_a_task_goes_and_no_words(tenants: tuple[str, ...]) -> None:
    found = visibility.seen(_task("north"), frozenset(tenants))
    assert found == types_pb2.TrainingTask(
        id="t1",
        status=types_pb2.PENDING,
        card="trade@1",
        progress=0.5,
        created_at_ms=1000,
        updated_at_ms=1000,
        demand=1,
    )
