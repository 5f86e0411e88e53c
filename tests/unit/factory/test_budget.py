from __future__ import annotations

from services.factory import budget, tasks
from shared import learning_settings
from tests.unit.factory import fakes

HOUR_MS = budget.WINDOW_MS
LIMITS = learning_settings.Budget(tasks_per_hour=4, tenant_tasks_per_hour=2)


def waiting(*tenants: str) -> list[tasks.TrainingTask]:
    return [fakes.task(f"t{at}", f"q{at}?", tenant=one) for at, one in enumerate(tenants)]


def may_start(tenants: str, spent: budget.Spending, most: int = 100) -> list[bool]:
    reasons = budget.reasons_to_wait(waiting(*tenants), spent, LIMITS, most)
    return [not reason for reason in reasons]


def test_tenant_waits_when_its_hour_is_used_up_and_others_start() -> None:
    assert may_start("aaabb", budget.Spending()) == [True, True, False, True, True]
    assert may_start("ab", budget.Spending((("a", 1), ("a", 2)))) == [False, True]


def test_all_wait_when_the_hour_of_all_is_used_up() -> None:
    assert may_start("abcde", budget.Spending()) == [True, True, True, True, False]


def test_reason_names_key_and_time_when_a_task_waits() -> None:
    spent = budget.Spending((("acme", 60_000), ("acme", 120_000)))
    [reason] = budget.reasons_to_wait(waiting("acme"), spent, LIMITS, 9)
    assert "factory.budget.tenant_tasks_per_hour of acme is 2" in reason
    assert "goes on after 01:01 UTC" in reason


def test_tasks_wait_for_their_turn_when_many_are_under_way() -> None:
    assert may_start("abc", budget.Spending(under_way=7), most=9) == [True, True, False]
    assert may_start("a", budget.Spending(under_way=10), most=9) == [False]


def test_any_number_starts_when_there_is_no_limit() -> None:
    limits = learning_settings.Budget(tasks_per_hour=0, tenant_tasks_per_hour=0)
    spent = budget.Spending(tuple(("a", 1) for _ in range(10_000)))
    assert budget.reasons_to_wait(waiting("a", "a"), spent, limits, 9) == ["", ""]
