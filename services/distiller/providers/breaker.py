"""The circuit breaker of a teacher: `shared.breaker` with what failures of teachers tell."""

from __future__ import annotations

from collections.abc import Callable

from services.distiller.providers import failures
from shared import breaker, teacher_settings

Circuit = breaker.Circuit
State = breaker.State


class CircuitBreaker(breaker.CircuitBreaker):
    """Guards one provider."""

    def __init__(
        self, name: str, settings: teacher_settings.Breaker, clock: Callable[[], float]
    ) -> None:
        """Starts closed; arguments as those of `shared.breaker.CircuitBreaker`."""
        super().__init__(name, settings, clock, "teacher", failures.advice)
