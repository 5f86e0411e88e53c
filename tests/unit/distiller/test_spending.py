"""What teachers cost is written down before and after, survives, and stays within a budget."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from services.distiller import spending
from shared import costs, errors, teacher_settings
from tests.unit.distiller import fakes

ORDER = spending.Order(
    task_id="t1",
    provider="openai:big",
    model="big",
    free=False,
    conversation="c1",
    largest=spending.Usage(1_000, 4_000, estimated=True),
)
RATES = {"big": teacher_settings.Rate(input=2.0, output=10.0)}
DAY_MS = 24 * 3600 * 1000


def _evolution(**budget: float) -> teacher_settings.Evolution:
    return teacher_settings.Evolution(rates=RATES, budget=teacher_settings.Spending(**budget))  # type: ignore[arg-type]


def test_call_counts_at_its_largest_when_its_end_was_not_seen() -> None:
    ledger = fakes.ledger(_evolution())
    ledger.open(ORDER)
    # 1,000 of 2 and 4,000 of 10 dollars a million.
    assert ledger.of_task("t1") == costs.Spent(
        calls=1, tokens_in=1_000, tokens_out=4_000, dollars=0.042, estimated_calls=1
    )


def test_call_counts_at_what_the_provider_says_when_it_is_settled() -> None:
    ledger = fakes.ledger(_evolution())
    number = ledger.open(ORDER)
    assert ledger.answer(ORDER) is None
    ledger.settle(number, ORDER, spending.Usage(900, 100), "{}")
    assert ledger.of_task("t1") == costs.Spent(1, 900, 100, dollars=0.0028)
    assert ledger.today() == ledger.of_task("t1")
    assert ledger.of_task("t2") == costs.Spent()
    assert ledger.answer(ORDER) == "{}"
    assert ledger.answer(dataclasses.replace(ORDER, task_id="t2")) is None
    assert ledger.answer(dataclasses.replace(ORDER, provider="other")) is None
    assert ledger.answer(dataclasses.replace(ORDER, conversation="c2")) is None


def test_nothing_is_counted_when_a_call_was_turned_down() -> None:
    ledger = fakes.ledger(_evolution())
    ledger.release(ledger.open(ORDER))
    assert ledger.of_task("t1") == costs.Spent()


def test_price_is_unknown_when_a_model_has_no_rate() -> None:
    ledger = fakes.ledger()
    ledger.open(ORDER)
    assert ledger.of_task("t1").unpriced_calls == 1
    assert ledger.of_task("t1").dollars == 0.0
    ledger.open(dataclasses.replace(ORDER, task_id="t2", free=True))
    assert ledger.of_task("t2").unpriced_calls == 0


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"task_tokens": 5_999},
            r"up to 5,000 tokens .* 5,999 tokens of this task, of which 1,000 are spent; raise "
            r"evolution\.budget\.task_tokens",
        ),
        ({"day_tokens": 5_999}, r"of 1970-01-01 \(UTC\).*raise evolution\.budget\.day_tokens"),
        (
            {"task_dollars": 0.0439},
            r"up to \$0\.0420 .* \$0\.0439 of this task, of which \$0\.0020 are spent; raise "
            r"evolution\.budget\.task_dollars",
        ),
        ({"day_dollars": 0.0439}, r"raise evolution\.budget\.day_dollars"),
    ],
)
def test_call_is_not_made_when_it_could_exceed_a_budget(
    budget: dict[str, float], message: str
) -> None:
    key, most = next(iter(budget.items()))
    for limit, stops in ((most, True), (most + (1 if most > 1 else 0.0002), False)):
        ledger = fakes.ledger(_evolution(**{key: limit}))
        ledger.settle(ledger.open(ORDER), ORDER, spending.Usage(1_000, 0), "{}")
        before = ledger.today()
        if stops:
            with pytest.raises(errors.BudgetError, match=message):
                ledger.open(ORDER)
            assert ledger.today() == before
        else:
            ledger.open(ORDER)


def test_calls_under_way_count_when_another_is_about_to_be_made() -> None:
    ledger = fakes.ledger(_evolution(day_tokens=9_000))
    ledger.open(ORDER)
    with pytest.raises(errors.BudgetError):
        ledger.open(dataclasses.replace(ORDER, task_id="t2"))


def test_free_teacher_is_never_stopped_and_takes_nothing_from_the_others() -> None:
    ledger = fakes.ledger(_evolution(task_tokens=5_000))
    for _ in range(3):
        ledger.open(dataclasses.replace(ORDER, free=True))
    ledger.open(ORDER)
    with pytest.raises(errors.BudgetError):
        ledger.open(ORDER)


def test_budget_of_the_day_is_whole_again_when_the_day_is_over() -> None:
    now = [0]
    ledger = fakes.ledger(_evolution(day_tokens=5_000), now_ms=lambda: now[0])
    ledger.open(ORDER)
    now[0] = DAY_MS - 1
    with pytest.raises(errors.BudgetError):
        ledger.open(ORDER)
    now[0] = DAY_MS
    ledger.open(ORDER)


def test_unpriced_model_is_refused_when_dollars_are_limited() -> None:
    budget = teacher_settings.Spending(day_dollars=1.0)
    ledger = fakes.ledger(teacher_settings.Evolution(budget=budget))
    with pytest.raises(errors.BudgetError, match=r"add evolution\.rates\.big"):
        ledger.open(ORDER)


def test_spending_is_there_when_the_process_was_killed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state" / "spending.sqlite"
    script = f"""
import os, pathlib, signal
from services.distiller import spending
from shared import teacher_settings
ledger = spending.Ledger(pathlib.Path({str(path)!r}), teacher_settings.Evolution(), lambda: 0)
order = spending.Order("t1", "p", "m", False, "c1", spending.Usage(10, 20, True))
ledger.settle(ledger.open(order), order, spending.Usage(1, 2), "answer")
ledger.open(order)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    ledger = fakes.ledger(path=path)
    assert ledger.of_task("t1") == costs.Spent(2, 11, 22, 0.0, 2, 1)
    order = dataclasses.replace(ORDER, provider="p")
    assert ledger.answer(order) == "answer"
    ledger.close()


def test_answers_are_dropped_and_figures_kept_when_they_are_old(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spending.sqlite"
    first = fakes.ledger(path=path)
    first.settle(first.open(ORDER), ORDER, spending.Usage(1, 2), "answer")
    first.close()
    second = fakes.ledger(path=path, now_ms=lambda: 8 * DAY_MS)
    assert second.answer(ORDER) is None
    assert second.of_task("t1").tokens_out == 2
    second.close()


def test_file_is_named_when_it_is_damaged(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spending.sqlite"
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(errors.ConfigError, match=r"spending\.sqlite"):
        fakes.ledger(path=path)


@pytest.mark.parametrize(
    ("text", "least"), [("The bridge is 412 metres long.", 8), ("橋の長さは四百十二", 9), ("", 0)]
)
def test_estimate_is_no_less_than_tokenizers_count(text: str, least: int) -> None:
    assert spending.tokens(text) >= least
