"""A submission that makes a tick fail is refused, and the others go on."""

from __future__ import annotations

import pathlib

import pytest

from services.hierarchy import hierarchy, journal, tick
from shared import errors
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


def test_others_go_on_when_one_agents_submission_makes_a_tick_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    stages, seen = tick.STAGES, []

    def choke(work: tick.Work) -> None:
        seen.append(len(work.gathered.submissions))
        if bad := {"bad", "worse"} & {one.agent for one in work.gathered.submissions}:
            raise ZeroDivisionError(f"on {sorted(bad)[0]}")

    kept = journal.Journal(tmp_path)
    held, other = hierarchy.LoRAHierarchy(making.FRAME, kept_in=kept), making.hierarchy()
    good = [f"agent-{at}" for at in range(5)]
    for one in (held, other):
        for at, agent in enumerate(good):
            one.submit(making.submission(agent, seed=at))
    for agent in ("bad", "worse"):
        held.submit(making.submission(agent, 1))
        held.submit(making.submission(agent, 2))
    with monkeypatch.context() as patched:
        patched.setattr(tick, "STAGES", (*stages[:4], ("updates", choke), *stages[4:]))
        report = held.system_tick()
    other.system_tick()
    assert making.same(held.snapshot(), other.snapshot()) and held.snapshot().version == 1
    assert report.submissions == 9 and held.waiting == 0 and len(seen) < 20
    for agent in ("bad", "worse"):
        told = held.settlements(agent, 0)
        assert [one.sequence for one in told] == [1, 2]
        assert all("ZeroDivisionError: on bad" in one.refused for one in told)
        assert held.state.accounts.totals(agent) == (2, 6, 2)
    assert all(held.settlements(agent, 0)[0].refused == "" for agent in good)
    assert list((tmp_path / "waiting").iterdir()) == []
    kept.close()


def test_what_many_culprits_leave_waits_for_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = tick.STAGES

    def choke(work: tick.Work) -> None:
        if any(one.agent.startswith("bad") for one in work.gathered.submissions):
            raise KeyError("no such thing")

    monkeypatch.setattr(tick, "STAGES", (*stages, ("choke", choke)))
    held = making.hierarchy()
    for at in range(6):
        held.submit(making.submission(f"bad-{at}"))
    held.submit(making.submission("good"))
    assert held.system_tick().submissions == 4 and held.waiting == 3
    assert held.system_tick().submissions == 3
    assert held.settlements("good", 0)[0].refused == ""
    assert held.snapshot().version == 1


def test_offered_circuit_is_left_out_when_it_makes_a_tick_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = tick.STAGES

    def choke(work: tick.Work) -> None:
        assert not work.gathered.circuits, "unforeseen"

    monkeypatch.setattr(tick, "STAGES", (("choke", choke), *stages))
    held = making.hierarchy()
    pieces = making.circuit(level=Level.SWARM).pieces
    held.migrate_circuit(making.circuit("x:1", level=Level.SWARM, agent="", pieces=pieces))
    held.submit(making.submission())
    assert held.system_tick().submissions == 1
    assert held.settlements("ada", 0)[0].refused == ""
    assert held.state.last_circuit == 1 and held.system_tick().submissions == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        errors.OverloadedError("the disk is full"),
    ],
)
def test_nobody_is_blamed_when_memory_or_disk_is_short(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = making.hierarchy()
    held.submit(making.submission())

    def fail(work: tick.Work) -> None:
        if work.gathered.submissions:
            raise error

    stages = tuple((name, fail if name == "updates" else one) for name, one in tick.STAGES)
    with monkeypatch.context() as patched:
        patched.setattr(tick, "STAGES", stages)
        with pytest.raises(type(error)):
            held.system_tick()
    assert held.waiting == 1
    held.system_tick()
    assert held.settlements("ada", 0)[0].refused == ""
