"""The distiller's figures for Prometheus: what teachers cost, and how they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import core, registry

from services.distiller import spending
from services.distiller.providers import base
from shared import errors, teacher_settings
from shared.telemetry import metrics

CALLS = metrics.counter(
    "skillmesh_teacher_calls", "Calls of teachers that were answered", "teacher", "model"
)
TOKENS = metrics.counter(
    "skillmesh_teacher_tokens", "Tokens of those calls", *("teacher", "model", "direction")
)
DOLLARS = metrics.counter(
    "skillmesh_teacher_dollars",
    "US dollars of those calls, by evolution.rates; nothing for models without one",
    *("teacher", "model"),
)
ERRORS = metrics.counter(
    "skillmesh_teacher_errors", "Teachers that handed over to the next", "teacher", "error"
)
BREAKER = metrics.gauge(
    "skillmesh_teacher_breaker",
    "1 at the state of each teacher's circuit: closed, open, half-open",
    *("teacher", "state"),
)
DAY_DOLLARS = metrics.gauge("skillmesh_teacher_day_dollars", "Spent today (UTC)")
DAY_TOKENS = metrics.gauge("skillmesh_teacher_day_tokens", "Spent today (UTC), input and output")
LIMIT_DOLLARS = metrics.gauge(
    "skillmesh_teacher_day_dollars_limit", "evolution.budget.day_dollars; 0: any amount"
)
LIMIT_TOKENS = metrics.gauge(
    "skillmesh_teacher_day_tokens_limit", "evolution.budget.day_tokens; 0: any amount"
)
FAMILIES = (
    *(CALLS, TOKENS, DOLLARS, ERRORS, BREAKER),
    *(DAY_DOLLARS, DAY_TOKENS, LIMIT_DOLLARS, LIMIT_TOKENS),
)


class Teachers(registry.Collector):
    """Is told of every call that was paid for, and of every teacher that failed."""

    def __init__(self) -> None:
        """Begins with none."""
        self._calls, self._tokens = CALLS.counter(), TOKENS.counter()
        self._dollars, self._errors = DOLLARS.counter(), ERRORS.counter()

    def paid(self, order: spending.Order, usage: spending.Usage, dollars: float | None) -> None:
        """A call was answered; its dollars are None where nobody knows them."""
        whose = (order.provider, order.model)
        self._calls.labels(*whose).inc()
        self._tokens.labels(*whose, "in").inc(usage.tokens_in)
        self._tokens.labels(*whose, "out").inc(usage.tokens_out)
        self._dollars.labels(*whose).inc(dollars or 0.0)

    def failed(self, teacher: str, error: errors.SkillmeshError) -> None:
        """A teacher could not answer."""
        self._errors.labels(teacher, type(error).__name__).inc()

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All of them."""
        for one in (self._calls, self._tokens, self._dollars, self._errors):
            yield from one.collect()


def reader(
    provider: base.CloudProvider, ledger: spending.Ledger, budget: teacher_settings.Spending
) -> metrics.LoopReader:
    """Reads what circuits and the record of costs say."""

    def breakers() -> metrics.Values:
        states = ("closed", "open", "half-open")
        return {
            (circuit.name, state): float(circuit.state.value == state)
            for circuit in provider.circuits()
            for state in states
        }

    def tokens() -> metrics.Values:
        spent = ledger.today()
        return spent.tokens_in + spent.tokens_out

    return metrics.LoopReader(
        {
            BREAKER: breakers,
            DAY_DOLLARS: lambda: ledger.today().dollars,
            DAY_TOKENS: tokens,
            LIMIT_DOLLARS: lambda: budget.day_dollars,
            LIMIT_TOKENS: lambda: budget.day_tokens,
        }
    )
