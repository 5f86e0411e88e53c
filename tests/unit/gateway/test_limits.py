"""What one key may ask, by a clock of the test's own."""

from __future__ import annotations

import pytest

from services.gateway.openai_api import limits, refusals
from shared import gateway_settings


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def limited(clock: Clock, **more: float) -> limits.Limits:
    return limits.Limits(gateway_settings.Limits(**more), clock)  # type: ignore[arg-type]


def ask(found: limits.Limits, key: str = "one", tokens: int = 0) -> limits.Admission:
    with found.admitted(key) as admission:
        admission.used(tokens)
        return admission


def test_lets_in_as_many_at_once_as_a_minute_has_and_then_at_its_pace() -> None:
    clock = Clock()
    found = limited(clock, requests_per_minute=3)
    left = [ask(found).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    with pytest.raises(refusals.LimitError) as refused:
        ask(found)
    assert refused.value.retry_s == pytest.approx(20)
    assert refused.value.headers["x-ratelimit-reset-requests"] == "60.000s"
    clock.now_s = 19.9
    with pytest.raises(refusals.LimitError):
        ask(found)
    clock.now_s = 20.1
    ask(found)
    with pytest.raises(refusals.LimitError):
        ask(found)


def test_gathers_no_more_than_a_minute_has() -> None:
    clock = Clock()
    found = limited(clock, requests_per_minute=2)
    clock.now_s = 86_400.0
    ask(found)
    ask(found)
    with pytest.raises(refusals.LimitError):
        ask(found)


def test_waits_for_tokens_that_were_used_beyond_what_was_there() -> None:
    clock = Clock()
    found = limited(clock, tokens_per_minute=60)
    ask(found, tokens=90)
    with pytest.raises(refusals.LimitError) as refused:
        ask(found)
    # 30 are owed, and one has to be there.
    assert refused.value.kind == "tokens" and refused.value.retry_s == pytest.approx(31)
    clock.now_s = 31.1
    ask(found)


def test_counts_requests_under_way_until_they_end_however_they_end() -> None:
    found = limited(Clock(), concurrent=1)
    with found.admitted("one"), pytest.raises(refusals.LimitError, match="at once"):
        ask(found)
    with pytest.raises(ZeroDivisionError), found.admitted("one"):
        raise ZeroDivisionError
    ask(found)


def test_counts_every_key_for_itself() -> None:
    found = limited(Clock(), requests_per_minute=1)
    ask(found, "one")
    ask(found, "other")
    with pytest.raises(refusals.LimitError):
        ask(found, "one")


def test_refused_requests_cost_nothing() -> None:
    clock = Clock()
    found = limited(clock, requests_per_minute=60, concurrent=1)
    with found.admitted("one"):
        for _ in range(100):
            with pytest.raises(refusals.LimitError):
                ask(found)
    assert ask(found).headers["x-ratelimit-remaining-requests"] == "58"


def test_tells_nothing_of_limits_that_are_not_there() -> None:
    assert ask(limited(Clock())).headers == {}
