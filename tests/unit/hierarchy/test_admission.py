"""How much agents may send."""

from __future__ import annotations

import pytest

from services.hierarchy import admission
from shared import errors


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def gate(
    clock: Clock, per_tick: int = 2, per_minute: float = 60.0, waiting_bytes: int = 100
) -> admission.Admission:
    return admission.Admission(per_tick, per_minute, waiting_bytes, clock)


def send(gate: admission.Admission, agent: str = "ada", size_bytes: int = 10) -> None:
    with gate.admitted(agent, size_bytes) as entry:
        entry.taken = True


def test_more_wait_for_nobody_else_when_an_agent_has_used_its_share_of_the_tick() -> None:
    opened = gate(Clock())
    send(opened)
    send(opened)
    with pytest.raises(errors.OverloadedError, match="submissions_per_tick"):
        send(opened)
    send(opened, "bob")
    assert opened.refused == {"ada": 1}
    opened.settle(opened.waiting())
    send(opened)


def test_only_what_waited_before_the_tick_ends_its_wait_when_the_tick_ends() -> None:
    opened = gate(Clock())
    send(opened)
    taken = opened.waiting()
    send(opened)
    opened.settle(taken)
    assert len(opened.waiting()) == 1
    send(opened)
    with pytest.raises(errors.OverloadedError):
        send(opened)


def test_rate_is_bounded_when_ticks_are_quick() -> None:
    clock = Clock()
    opened = gate(clock)
    for _ in range(4):
        send(opened)
        opened.settle(opened.waiting())
    with pytest.raises(errors.OverloadedError, match=r"a minute .* in 1\.0 s"):
        send(opened)
    clock.now_s = 1.0
    send(opened)
    with pytest.raises(errors.OverloadedError, match="a minute"):
        send(opened)
    clock.now_s = 3600.0  # The bucket holds no more than a burst.
    opened.settle(opened.waiting())
    for _ in range(4):
        send(opened)
        opened.settle(opened.waiting())
    with pytest.raises(errors.OverloadedError, match="a minute"):
        send(opened)


def test_bytes_of_all_are_bounded_unless_one_comes_alone() -> None:
    opened = gate(Clock())
    send(opened, "big", 1000)
    with pytest.raises(errors.OverloadedError, match="waiting_mib"):
        send(opened, "ada", 1)
    opened.settle(opened.waiting())
    send(opened, "ada", 60)
    send(opened, "bob", 40)
    with pytest.raises(errors.OverloadedError, match="waiting_mib"):
        send(opened, "cyd", 1)


def test_nothing_is_held_when_a_submission_was_not_taken() -> None:
    opened = gate(Clock())
    with opened.admitted("ada", 100), pytest.raises(errors.OverloadedError):
        send(opened, "bob")
    for wrong in (errors.InvalidInputError("wrong shape"), RuntimeError("a defect")):
        with pytest.raises(type(wrong)), opened.admitted("ada", 100):
            raise wrong
    assert opened.waiting() == [] and opened.refused == {"bob": 1, "ada": 1}
    send(opened, "bob", 100)


def test_what_waited_before_a_restart_counts_when_it_is_restored() -> None:
    opened = gate(Clock())
    opened.restore("ada", 10)
    opened.restore("ada", 10)
    with pytest.raises(errors.OverloadedError, match="submissions_per_tick"):
        send(opened)
    opened.settle(opened.waiting())
    send(opened)
