from __future__ import annotations

import collections
import dataclasses
import pathlib
import threading
from collections.abc import Iterator

import pytest
import torch

from benchmarks.hierarchy import load
from services.hierarchy import health, hierarchy, journal, tick
from services.hierarchy.hierarchy_settings import Switches
from shared import atomic, errors
from shared.hierarchy import weights
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


@pytest.fixture
def on_disk(tmp_path: pathlib.Path) -> Iterator[hierarchy.LoRAHierarchy]:
    kept = journal.Journal(tmp_path)
    yield hierarchy.LoRAHierarchy(making.FRAME, kept_in=kept)
    kept.close()


class Sick(health.HealthMonitor):
    """Asks for actions that are given, whatever is measured."""

    def __init__(self, asked: dict[int, list[health.Action]]) -> None:
        super().__init__()
        self.asked = asked

    def report(self, measured: health.Measurements) -> health.Report:
        found = super().report(measured)
        actions = tuple(self.asked.get(found.tick, ()))
        verdict = health.Verdict.CRITICAL if actions else health.Verdict.HEALTHY
        sick = health.Finding(health.Aspect.ENTROPY, verdict, 0.1, "made up", Level.SWARM)
        return dataclasses.replace(found, findings=(sick,), actions=actions)


def test_actions_of_health_are_carried_out_and_counted() -> None:
    held = making.hierarchy()
    remedy = health.Remedy
    held.state.monitor = Sick(
        {
            3: [health.Action(remedy.FREEZE, Level.DOMAIN)],
            4: [
                health.Action(remedy.RAISE_THRESHOLD, Level.SWARM, 0.2),
                health.Action(remedy.LOWER_THRESHOLD, Level.FOUNDATION, -0.2),
            ],
            5: [health.Action(remedy.ROLL_BACK, Level.SWARM)],
            6: [health.Action(remedy.THAW, Level.DOMAIN)],
        }
    )
    snapshots, reports = [held.snapshot()], []
    for sequence in range(1, 7):
        held.submit(making.submission(sequence=sequence, version=held.snapshot().version))
        reports.append(held.system_tick())
        snapshots.append(held.snapshot())

    def moved(before: int, level: Level) -> bool:
        old, new = snapshots[before].layers[level], snapshots[before + 1].layers[level]
        return not all(torch.equal(old[path].b, new[path].b) for path in old)

    assert [moved(at, Level.DOMAIN) for at in range(6)] == [True] * 3 + [False] * 3
    healthy = snapshots[1].layers[Level.SWARM]  # Found so by the last healthy tick, 2.
    back = snapshots[5].layers[Level.SWARM]
    assert all(torch.equal(healthy[path].b, back[path].b) for path in healthy)
    assert moved(4, Level.FOUNDATION)  # The other layers did not go back.
    assert held.state.actions.counts == collections.Counter(
        ["freeze", "raise_threshold", "lower_threshold", "roll_back", "thaw"]
    )
    assert [done.tick for done in held.state.actions.last] == [3, 4, 4, 5, 6]
    assert held.state.layers[Level.FOUNDATION].threshold < 0.35


def test_layer_frozen_by_hand_is_not_thawed_by_health() -> None:
    held = making.hierarchy()
    held.set_frozen(Level.DOMAIN, True)
    held.state.monitor = Sick({1: [health.Action(health.Remedy.THAW, Level.DOMAIN)]})
    held.system_tick()
    assert held.state.layers[Level.DOMAIN].frozen


def test_circuit_is_not_told_as_moved_when_its_layer_was_rolled_back() -> None:
    held = making.hierarchy()
    held.state.monitor = Sick({1: [health.Action(health.Remedy.ROLL_BACK, Level.SWARM)]})
    held.submit(making.submission(circuits=(making.circuit("ada:1"),), scale=0.0))
    held.system_tick()
    [told] = held.settlements("ada", 0)
    assert told.moved == () and told.waiting == ()
    assert held.state.coordinator.waiting == (), "what is not in the swarm goes no further"


def signs_of_work(held: hierarchy.LoRAHierarchy) -> dict[str, bool]:
    """By stage, whether it left something that only it leaves."""
    reports = held.reports()
    return {
        "homeostasis": any(report.homeostasis for report in reports),
        "vertical": any(sum(report.marks.values()) for report in reports),
        "horizontal": any(report.alignments for report in reports),
        "detection": any(report.waiting_circuits for report in reports),
        "migration": any(report.moved for report in reports),
        "health": any(report.findings for report in reports),
    }


@pytest.mark.parametrize(
    "off", ["homeostasis", "vertical", "horizontal", "detection", "migration", "health"]
)
def test_stage_does_nothing_when_it_is_switched_off(off: str) -> None:
    mixture = load.Mixture(circuit=0.5, offered=0.0)
    switches = dataclasses.replace(Switches(), **{off: False})
    signs = []
    for held in (making.hierarchy(), making.hierarchy(switches=switches)):
        for at in range(6):
            load.send(held, at, making.SEED, mixture)
            held.system_tick()
        signs.append(signs_of_work(held))
    assert all(signs[0].values()) and not signs[1][off]
    # Nothing can move that was not detected.
    gone = {off, "migration"} if off == "detection" else {off}
    assert all(signs[1][name] for name in signs[1].keys() - gone)


@pytest.mark.parametrize("on", [True, False])
def test_layers_are_moved_by_gradients_only_when_updates_are_switched_on(on: bool) -> None:
    held = making.hierarchy(switches=Switches(updates=on))
    held.submit(making.submission())
    assert held.system_tick().version == (1 if on else 0)


def test_stages_run_in_their_order() -> None:
    seen: list[str] = []
    held = hierarchy.LoRAHierarchy(making.FRAME, at=seen.append)
    held.system_tick()
    assert seen == [*[name for name, _ in tick.STAGES], "commit"]
    assert [name for name, _ in tick.STAGES] == [
        "homeostasis", "gather", "vertical", "horizontal",
        "updates", "detection", "migration", "health",
    ]  # fmt: skip


def test_state_is_as_before_when_a_tick_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    held, other = making.loaded(8), making.loaded(8)
    before = held.snapshot()
    waited = load.send(held, 8, making.SEED)

    def fail(work: tick.Work) -> None:
        raise RuntimeError("injected")

    for at in range(len(tick.STAGES)):
        stages = list(tick.STAGES)
        stages[at] = (stages[at][0], fail)
        with monkeypatch.context() as patched:
            patched.setattr(tick, "STAGES", tuple(stages))
            with pytest.raises(RuntimeError):
                held.system_tick()
    assert making.same(held.snapshot(), before) and held.waiting == waited > 0
    load.send(other, 8, making.SEED)
    for one in (held, other):
        one.system_tick()
        load.send(one, 9, making.SEED)
        one.system_tick()
    assert held.digest() == other.digest()


def test_layer_goes_back_when_a_stage_left_it_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    held = making.hierarchy()
    held.submit(making.submission())
    held.system_tick()
    before = held.snapshot()

    def spoil(work: tick.Work) -> None:
        own = work.state.layers[Level.SWARM]
        own.update({path: weights.Factors(pair.a, pair.b) for path, pair in own.weights.items()})
        broken = own.weights["layers.0.v_proj"].b
        broken[0, 0] = float("nan")

    stages = tuple((name, spoil if name == "migration" else one) for name, one in tick.STAGES)
    monkeypatch.setattr(tick, "STAGES", stages)
    held.submit(making.submission(sequence=2, version=before.version))
    held.system_tick()
    swarm, was = held.snapshot().layers[Level.SWARM], before.layers[Level.SWARM]
    assert all(torch.equal(swarm[path].b, was[path].b) for path in was)
    domain, was = held.snapshot().layers[Level.DOMAIN], before.layers[Level.DOMAIN]
    assert not all(torch.equal(domain[path].b, was[path].b) for path in was)
    assert held.settled_sequence("ada") == 2


def test_earlier_state_stands_and_nothing_is_lost_when_the_disk_is_full(
    on_disk: hierarchy.LoRAHierarchy, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk.submit(making.submission())
    digest, files = on_disk.digest(), sorted(path.name for path in tmp_path.rglob("*"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"{atomic.__name__}.os.fsync", full)
        with pytest.raises(errors.OverloadedError, match="no room on disk"):
            on_disk.system_tick()
        with pytest.raises(errors.OverloadedError, match="no room on disk"):
            on_disk.submit(making.submission("eve"))
    assert on_disk.digest() == digest and on_disk.snapshot().version == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == files
    assert on_disk.waiting == 1
    assert on_disk.system_tick().submissions == 1


def test_everything_is_the_same_after_a_restart(tmp_path: pathlib.Path) -> None:
    kept = journal.Journal(tmp_path)
    first = hierarchy.LoRAHierarchy(making.FRAME, kept_in=kept)
    for at in range(15):
        load.send(first, at, making.SEED)
        first.system_tick()
    first.set_frozen(Level.FOUNDATION, True)
    load.send(first, 15, making.SEED)
    kept.close()
    again = journal.Journal(tmp_path)
    second = hierarchy.LoRAHierarchy(making.FRAME, kept_in=again)
    assert second.digest() == first.digest() and second.waiting == first.waiting
    for version in first.state.kept:
        assert making.same(first.snapshot(version), second.snapshot(version))
    for agent in first.state.accounts.names():
        assert first.settlements(agent, 0) == second.settlements(agent, 0)
    assert second.roll_back() == second.snapshot().version
    again.close()


def test_folder_is_refused_when_it_is_of_other_layers(tmp_path: pathlib.Path) -> None:
    kept = journal.Journal(tmp_path)
    hierarchy.LoRAHierarchy(making.FRAME, kept_in=kept)
    with pytest.raises(errors.PreconditionError, match="other modules, ranks or another seed"):
        hierarchy.LoRAHierarchy(making.FRAME, seed=1, kept_in=kept)
    kept.close()


def test_submissions_of_many_threads_count_once_each_while_ticks_go_on() -> None:
    held = making.hierarchy(most_waiting=1000)
    done = threading.Event()
    rounds = 12

    def send(agent: str) -> None:
        for sequence in range(1, rounds + 1):
            while True:
                try:
                    held.submit(making.submission(agent, sequence, version=held.snapshot().version))
                    held.submit(making.submission(agent, sequence, version=held.snapshot().version))
                    break
                except errors.OverloadedError:
                    continue

    agents = [f"agent-{at}" for at in range(3)]
    threads = [threading.Thread(target=send, args=(agent,)) for agent in agents]
    settled = 0

    def ticks() -> None:
        nonlocal settled
        while not done.is_set() or held.waiting:
            settled += held.system_tick().submissions

    ticking = threading.Thread(target=ticks)
    for thread in [*threads, ticking]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    ticking.join()
    assert settled == rounds * len(agents)
    for agent in agents:
        assert [one.sequence for one in held.settlements(agent, 0)] == [*range(1, rounds + 1)]


def test_long_run_under_random_load_stays_healthy_and_bounded() -> None:
    held = making.hierarchy()
    healthy = 0
    moves: collections.Counter[str] = collections.Counter()
    for at in range(300):
        load.send(held, at, making.SEED)
        report = held.system_tick()
        healthy += all(0.8 <= one.ratio <= 1.2 for one in report.homeostasis.values())
        assert len(set(report.moved)) == len(report.moved)
        moves.update(report.moved)
    # Three channels lead from the agent layer to the foundation: what moves more often loops.
    assert moves and max(moves.values()) <= 3
    assert healthy >= 0.95 * 300
    queues = held.state.coordinator.stats.values()
    most = held.settings.queue.length + held.settings.queue.reserve
    assert all(stats.depth <= most for stats in queues)
    assert len(held.state.kept) <= held.settings.kept_snapshots + 1
    for agent in held.state.accounts.names():
        assert len(held.settlements(agent, 0)) <= held.settings.most_settlements
