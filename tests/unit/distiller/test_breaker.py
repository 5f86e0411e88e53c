"""When a teacher that fails is left alone, and who finds out that it is back."""

from __future__ import annotations

import pytest

from services.distiller.providers import breaker, failures
from shared import errors, teacher_settings

SETTINGS = teacher_settings.Breaker(failures=3, pause_s=10, longest_pause_s=25)
DOWN = failures.DownError("answered 500")


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _fail(guard: breaker.CircuitBreaker, error: errors.SkillmeshError = DOWN) -> None:
    assert guard.refusal() is None
    guard.asks()
    guard.failed(error)


def _opened(clock: _Clock) -> breaker.CircuitBreaker:
    guard = breaker.CircuitBreaker("t", SETTINGS, clock)
    for _ in range(SETTINGS.failures):
        _fail(guard)
    return guard


def test_circuit_opens_when_failures_come_in_a_row() -> None:
    guard = breaker.CircuitBreaker("t", SETTINGS, _Clock())
    for _ in range(2):
        _fail(guard)
        assert guard.circuit().state is breaker.State.CLOSED
    guard.succeeded()
    for _ in range(2):
        _fail(guard)
        assert guard.circuit().state is breaker.State.CLOSED
    _fail(guard)
    assert guard.circuit() == breaker.Circuit("t", breaker.State.OPEN, "answered 500", 10.0)
    refusal = guard.refusal()
    assert type(refusal) is failures.DownError
    assert str(refusal) == "answered 500 (left alone for another 10 s)"


def test_one_request_goes_through_when_the_pause_is_over() -> None:
    clock = _Clock()
    guard = _opened(clock)
    clock.now = 9.9
    assert guard.refusal() is not None
    clock.now = 10.0
    assert guard.circuit().state is breaker.State.HALF_OPEN
    assert guard.refusal() is None
    guard.asks()
    assert "another request finds out" in str(guard.refusal())
    guard.succeeded()
    assert guard.circuit() == breaker.Circuit("t", breaker.State.CLOSED)
    assert guard.refusal() is None


def test_next_request_may_try_when_the_one_that_tried_was_given_up() -> None:
    clock = _Clock()
    guard = _opened(clock)
    clock.now = 10.0
    guard.asks()
    guard.abandoned()
    assert guard.refusal() is None


def test_pause_doubles_up_to_the_longest_when_the_teacher_stays_down() -> None:
    clock = _Clock()
    guard = _opened(clock)
    pauses = []
    for _ in range(4):
        pauses.append(guard.circuit().open_for_s)
        clock.now += pauses[-1]
        _fail(guard)
    assert pauses == [10.0, 20.0, 25.0, 25.0]
    clock.now += 25.0
    guard.succeeded()
    for _ in range(SETTINGS.failures):
        _fail(guard)
    assert guard.circuit().open_for_s == 10.0


def test_pause_is_not_doubled_when_requests_fail_that_went_out_together() -> None:
    clock = _Clock()
    guard = breaker.CircuitBreaker("t", SETTINGS, clock)
    for _ in range(8):
        guard.asks()
    for _ in range(8):
        guard.failed(DOWN)
    assert guard.circuit().open_for_s == 10.0
    guard.failed(failures.DownError("busy", failures.Advice(after_s=12.0)))
    assert guard.circuit().open_for_s == 12.0
    guard.failed(failures.DownError("busy", failures.Advice(after_s=1.0)))
    assert guard.circuit().open_for_s == 12.0
    guard.failed(failures.BarredError("bad key"))
    assert guard.circuit().open_for_s == 25.0


def test_pause_is_the_first_one_when_only_retry_after_opened_before() -> None:
    clock = _Clock()
    guard = breaker.CircuitBreaker("t", SETTINGS, clock)
    _fail(guard, failures.DownError("busy", failures.Advice(after_s=4.0)))
    clock.now += 4.0
    _fail(guard)
    assert guard.circuit().open_for_s == 10.0


def test_pauses_stay_finite_when_a_teacher_is_down_for_years() -> None:
    clock = _Clock()
    guard = _opened(clock)
    for _ in range(3000):
        clock.now += guard.circuit().open_for_s
        _fail(guard)
    assert guard.circuit().open_for_s == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [
        (failures.BarredError("bad key"), 25.0),
        (failures.DownError("no credit", failures.Advice(until_mended=True)), 25.0),
        (failures.DownError("busy", failures.Advice(after_s=4.0)), 4.0),
        (failures.DownError("busy", failures.Advice(after_s=3600.0)), 3600.0),
    ],
)
def test_circuit_opens_at_once_when_asking_again_is_known_to_fail(
    error: errors.SkillmeshError, pause_s: float
) -> None:
    guard = breaker.CircuitBreaker("t", SETTINGS, _Clock())
    _fail(guard, error)
    assert guard.circuit().open_for_s == pause_s
    assert type(guard.refusal()) is type(error)
