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
from shared.hierarchy import levels, messages, weights
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making

SEED = 3


def loaded(ticks: int, **changed: object) -> hierarchy.LoRAHierarchy:
    held = making.hierarchy(**changed)
    for at in range(ticks):
        load.send(held, at, SEED)
        held.system_tick()
    return held


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the service has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def on_disk(tmp_path: pathlib.Path) -> Iterator[hierarchy.LoRAHierarchy]:
    kept = journal.Journal(tmp_path)
    yield hierarchy.LoRAHierarchy(making.FRAME, kept_in=kept)
    kept.close()


def test_new_hierarchy_adds_nothing() -> None:
    held = making.hierarchy()
    assert held.snapshot().version == 0
    assert torch.equal(held.forward(torch.ones(3, 12), "layers.0.q_proj"), torch.zeros(3, 10))


def test_forward_is_the_sum_of_the_stack() -> None:
    held = loaded(5)
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    private = {
        level: making.layer(making.SPECS[level].rank, torch.Generator().manual_seed(1))
        for level in levels.PRIVATE
    }
    stack = {**held.snapshot().layers, **private}
    wanted = sum(x @ one["layers.0.q_proj"].a @ one["layers.0.q_proj"].b for one in stack.values())
    found = held.forward(x, "layers.0.q_proj", private)
    assert torch.allclose(found, wanted, atol=1e-5) and found.abs().max() > 0
    with pytest.raises(errors.NotFoundError, match="no module 'lm_head'"):
        held.forward(x, "lm_head")


def test_layers_move_by_one_minus_their_inertia() -> None:
    held = making.hierarchy()
    before = held.snapshot()
    sent = making.submission()
    held.submit(sent)
    held.system_tick()
    path = "layers.0.q_proj"
    for level in levels.SHARED:
        step = held.snapshot().layers[level][path].b - before.layers[level][path].b
        rate = held.settings.outer_rate * (1 - making.SPECS[level].inertia)
        wanted = rate * (1 - held.settings.layer.decay_free) * sent.shared[level][path].b
        assert torch.allclose(step, wanted, atol=1e-7)


def test_submission_counts_once_when_it_is_sent_again_before_and_after_its_tick() -> None:
    once, often = making.hierarchy(), making.hierarchy()
    once.submit(making.submission())
    assert [often.submit(making.submission()) for _ in range(2)] == [True, False]
    for held in (once, often):
        held.system_tick()
    assert not often.submit(making.submission())
    assert often.last_sequence("ada") == 1 and often.waiting == 0
    for held in (once, often):
        held.system_tick()
    assert once.digest() == often.digest()


def test_snapshot_stays_as_it_was_while_ticks_go_on() -> None:
    held = making.hierarchy()
    held.submit(making.submission())
    held.system_tick()
    taken = held.snapshot()
    copies = [pair.b.clone() for layer in taken.layers.values() for pair in layer.values()]
    for at in range(10):
        load.send(held, at, SEED)
        held.system_tick()
    after = [pair.b for layer in taken.layers.values() for pair in layer.values()]
    assert all(torch.equal(one, other) for one, other in zip(copies, after, strict=True))
    assert held.snapshot().version > taken.version
    with pytest.raises(TypeError):
        taken.layers[Level.SWARM] = {}  # type: ignore[index]


def test_newest_snapshots_are_kept_and_older_ones_let_go() -> None:
    held = loaded(30, kept_snapshots=3)
    newest = held.snapshot().version
    assert held.snapshot(newest - 2).version == newest - 2
    with pytest.raises(errors.NotFoundError, match="snapshot 1 is not kept"):
        held.snapshot(1)


def test_version_stays_when_nothing_was_learned() -> None:
    held = loaded(10)
    while held.state.coordinator.waiting:
        held.state.coordinator.withdraw(held.state.coordinator.waiting[0].id)
    before = held.snapshot()
    reports = [held.system_tick() for _ in range(3)]
    assert [report.tick for report in reports] == [11, 12, 13]
    changed = [report for report in reports if report.version != before.version]
    # Homeostasis may still draw a layer to its budget; nothing decays.
    assert all(report.homeostasis[Level.SWARM].actions for report in changed) or not changed


@pytest.mark.parametrize(("behind", "taken"), [(0, True), (2, True), (3, False), (-1, False)])
def test_stale_submission_counts_up_to_a_bound(behind: int, taken: bool) -> None:
    held = making.hierarchy(most_stale=2)
    for sequence in range(1, 5):
        held.submit(making.submission("eve", sequence, version=held.snapshot().version))
        held.system_tick()
    before = held.snapshot()
    held.submit(making.submission("ada", version=before.version - behind))
    held.system_tick()
    [told] = held.settlements("ada", 0)
    assert (told.refused == "") is taken
    assert making.same(held.snapshot(), before) is not taken
    if not taken:
        assert "learn on a new one" in told.refused and told.factors == {}


def test_settlements_are_kept_until_the_agent_has_taken_them() -> None:
    held = making.hierarchy()
    for sequence in (1, 2, 3):
        held.submit(making.submission(sequence=sequence, version=held.snapshot().version))
        held.system_tick()
    assert [one.sequence for one in held.settlements("ada", 0)] == [1, 2, 3]
    assert [one.version for one in held.settlements("ada", 0)] == [1, 2, 3]
    assert [one.sequence for one in held.settlements("ada", 2)] == [3]
    held.system_tick()
    assert [one.sequence for one in held.settlements("ada", 0)] == [3]
    assert held.settlements("nobody", 0) == ()


def test_only_so_many_agents_are_let_in() -> None:
    held = making.hierarchy(most_agents=2)
    for agent in ("ada", "eve"):
        held.submit(making.submission(agent))
    with pytest.raises(errors.CapacityError, match="the hierarchy has 2 agents"):
        held.submit(making.submission("bob"))
    held.system_tick()
    assert held.submit(making.submission("ada", 2))


def alike(held: hierarchy.LoRAHierarchy, agent: str, sequence: int) -> messages.Submission:
    """A submission whose agent layer moves as the swarm layer does."""
    swarm = held.snapshot().layers[Level.SWARM]
    sent = making.submission(agent, sequence, seed=1, version=held.snapshot().version)
    products = weights.product_change(swarm, sent.shared[Level.SWARM])
    return dataclasses.replace(sent, private={Level.AGENT: _low(products)})


def test_agent_does_not_confirm_itself_however_often_it_says_the_same() -> None:
    held = making.hierarchy()
    for sequence in range(1, 6):
        held.submit(alike(held, "ada", sequence))
        held.system_tick()
    told = held.settlements("ada", 0)
    assert {one.mark for one in told} == {messages.Mark.NORMAL}
    assert {one.alignment for one in told} == {0.0}


def test_agent_that_is_alone_is_confirmed_by_what_another_taught_the_swarm() -> None:
    held = making.hierarchy()
    held.submit(alike(held, "eve", 1))
    held.system_tick()
    held.submit(alike(held, "ada", 1))
    held.system_tick()
    [told] = held.settlements("ada", 0)
    assert told.mark is messages.Mark.FAST_TRACK


def _low(products: weights.Weights) -> weights.Weights:
    """A change that fits the agent layer's rank."""
    found = {}
    for path, pair in products.items():
        left, size, right = torch.linalg.svd(pair.a @ pair.b, full_matrices=False)
        found[path] = weights.Factors(left[:, :6] * size[:6], right[:6])
    return found


def test_agents_that_learn_the_same_are_on_the_fast_track() -> None:
    held = making.hierarchy()
    for agent in ("ada", "eve"):
        held.submit(alike(held, agent, 1))
    report = held.system_tick()
    assert report.marks[messages.Mark.FAST_TRACK] == 2
    [told] = held.settlements("ada", 0)
    assert told.factors[Level.AGENT] > 1.0


def test_circuit_of_an_agent_moves_to_the_swarm_and_the_agent_is_told() -> None:
    held = making.hierarchy()
    circuit = making.circuit("ada:1")
    held.submit(making.submission(circuits=(circuit,), scale=0.0))
    report = held.system_tick()
    [told] = held.settlements("ada", 0)
    assert report.moved == ("ada:1",) and told.moved == ("ada:1",)
    swarm = held.snapshot().layers[Level.SWARM]
    for path, piece in circuit.pieces.items():
        assert torch.allclose(swarm[path].a @ swarm[path].b, piece.a @ piece.b, atol=1e-5)


def test_circuit_goes_on_to_its_top_and_no_further() -> None:
    held = making.hierarchy()
    held.submit(making.submission(circuits=(making.circuit("ada:1", top=Level.DOMAIN),), scale=0.0))
    path = "layers.0.q_proj"
    product = making.circuit("ada:1").pieces[path]
    for _ in range(400):
        held.system_tick()
    layers = held.snapshot().layers
    found = {
        level: weights.cosine({path: layers[level][path]}, {path: product}) for level in layers
    }
    assert found[Level.DOMAIN] > 0.99 and found[Level.FOUNDATION] == 0.0
    assert weights.norm({path: layers[Level.SWARM][path]}) < 0.01 * weights.norm({path: product})


def test_forward_is_the_same_for_the_owner_before_and_after_a_circuit_moved() -> None:
    held = making.hierarchy()
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    path = "layers.0.q_proj"
    circuit = making.circuit("ada:1")
    before = held.forward(x, path, {Level.AGENT: circuit.pieces})
    held.submit(making.submission(circuits=(circuit,), scale=0.0))
    held.system_tick()
    assert torch.allclose(held.forward(x, path), before, atol=1e-4)


def test_circuit_that_is_too_large_is_not_taken_from_an_agent() -> None:
    held = making.hierarchy()
    draw = torch.Generator().manual_seed(0)
    shape = making.SHAPES["layers.1.q_proj"]
    huge = making.circuit(
        channels={"layers.1.q_proj": (1,)},
        pieces={"layers.1.q_proj": making.factors(shape, 1, draw, scale=100.0)},
    )
    held.submit(making.submission(circuits=(huge,), scale=0.0))
    report = held.system_tick()
    assert report.moved == () and report.rejected_circuits == 1


def test_offered_circuit_of_the_swarm_moves_to_the_domain() -> None:
    held = loaded(6)
    pieces = making.circuit("x", level=Level.SWARM).pieces
    circuit = making.circuit("x:1", level=Level.SWARM, agent="", critical=True, pieces=pieces)
    before = held.snapshot().layers
    swarm = before[Level.SWARM]["layers.1.q_proj"]
    channel = weights.Factors(swarm.a[:, [1]], swarm.b[[1]])
    held.migrate_circuit(circuit)
    held.migrate_circuit(circuit)
    report = held.system_tick()
    assert "x:1" in report.moved
    after = held.snapshot().layers[Level.DOMAIN]
    gained = weights.summed([after, before[Level.DOMAIN]], [1.0, -1.0])["layers.1.q_proj"]
    assert weights.cosine({"p": gained}, {"p": channel}) > 0.9
    with pytest.raises(errors.InvalidInputError, match="from which nothing moves"):
        held.migrate_circuit(dataclasses.replace(circuit, level=Level.FOUNDATION))


def test_frozen_layer_stays_as_it_is_and_circuits_wait() -> None:
    held = making.hierarchy()
    held.set_frozen(Level.SWARM, True)
    before = held.snapshot().layers[Level.SWARM]
    held.submit(making.submission(circuits=(making.circuit("ada:1"),)))
    report = held.system_tick()
    after = held.snapshot().layers[Level.SWARM]
    assert all(torch.equal(before[path].b, after[path].b) for path in before)
    assert report.moved == () and report.waiting_circuits == 1
    held.set_frozen(Level.SWARM, False)
    assert held.system_tick().moved == ("ada:1",)


def test_roll_back_is_a_new_version_of_old_layers() -> None:
    held = loaded(10)
    healthy = held.snapshot(held.state.healthy)
    with pytest.raises(errors.NotFoundError):
        held.roll_back(-5)
    version = held.roll_back()
    assert version >= healthy.version and making.same(held.snapshot(), healthy)


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
            load.send(held, at, SEED, mixture)
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
    held, other = loaded(8), loaded(8)
    before = held.snapshot()
    waited = load.send(held, 8, SEED)

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
    load.send(other, 8, SEED)
    for one in (held, other):
        one.system_tick()
        load.send(one, 9, SEED)
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
        load.send(first, at, SEED)
        first.system_tick()
    first.set_frozen(Level.FOUNDATION, True)
    load.send(first, 15, SEED)
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
        load.send(held, at, SEED)
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
