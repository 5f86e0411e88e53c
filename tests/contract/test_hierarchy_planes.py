"""Both planes of the hierarchy over loopback: who may do what, and what wrong input does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
import urllib.request
from collections.abc import AsyncIterator

import pyarrow.flight
import pytest

from services.gateway import domain
from services.gateway.calls import peers
from shared import errors
from shared.hierarchy import levels, messages, weights, wire
from shared.pb import hierarchy_pb2, hierarchy_pb2_grpc
from shared.rpc import client as rpc_client
from tests import fake_layers
from tests.contract import hierarchies


@pytest.fixture
async def house(tmp_path: pathlib.Path) -> AsyncIterator[hierarchies.House]:
    async with hierarchies.running(hierarchies.settings(tmp_path)) as opened:
        yield opened


@pytest.fixture
async def guarded(tmp_path: pathlib.Path) -> AsyncIterator[hierarchies.House]:
    async with hierarchies.running(hierarchies.settings(tmp_path, tokens=True)) as opened:
        yield opened


async def tick(house: hierarchies.House, who: str = "") -> hierarchy_pb2.TickResponse:
    return await house.call("Tick", hierarchy_pb2.TickRequest(), who)


async def status(house: hierarchies.House, who: str = "") -> hierarchy_pb2.HierarchyStatus:
    return await house.call("GetHierarchyStatus", hierarchy_pb2.GetHierarchyStatusRequest(), who)


async def test_agents_learn_of_their_settlements_when_a_tick_was_made(
    house: hierarchies.House,
) -> None:
    joined = [await house.join(agent) for agent in ("ada", "bob", "cyd")]
    assert joined[0].flight_address == f"127.0.0.1:{house.listening.flight_port}"
    assert {spec.level: spec.rank for spec in joined[0].specs} == {
        level.value: spec.rank for level, spec in fake_layers.SPECS.items()
    }
    data = await house.get(joined[0].snapshot.digest)
    assert len(data) == joined[0].snapshot.size_bytes
    assert wire.snapshot_from_bytes(data, fake_layers.FRAME).version == 0
    for agent in ("ada", "bob"):
        await house.put(fake_layers.submission(agent))
    made = await tick(house)
    assert (made.tick, made.version, made.submissions) == (1, 1, 2)
    async with rpc_client.channel(house.address) as channel:
        stub = hierarchy_pb2_grpc.HierarchyStub(channel)
        positions = [hierarchy_pb2.AgentPosition(agent=name) for name in ("ada", "cyd")]
        call = stub.Watch(hierarchy_pb2.WatchHierarchyRequest(agents=positions))
        news = await call.read()
        call.cancel()
    assert isinstance(news, hierarchy_pb2.HierarchyNews)
    [told] = news.settlements
    assert (told.agent, told.sequence, told.version) == ("ada", 1, 1)
    assert (told.mark, told.alignment, dict(told.factors)) == (
        hierarchy_pb2.NORMAL,
        0.25,
        {"agent": 0.5},
    )
    assert news.snapshot.version == 1
    assert hashlib.sha256(await house.get(news.snapshot.digest)).hexdigest() == news.snapshot.digest


async def test_any_flight_client_gets_a_table_when_it_does_not_ask_for_raw_bytes(
    house: hierarchies.House,
) -> None:
    joined = await house.join("ada")
    client = pyarrow.flight.FlightClient(f"grpc://127.0.0.1:{house.listening.flight_port}")
    ticket = pyarrow.flight.Ticket(json.dumps({"digest": joined.snapshot.digest}))
    table = await asyncio.to_thread(lambda: client.do_get(ticket).read_all())
    client.close()
    assert set(table.column("layer").to_pylist()) >= {"foundation", "domain", "swarm"}


async def test_submission_counts_once_when_it_is_replayed(house: hierarchies.House) -> None:
    await house.join("ada")
    for _ in range(3):
        await house.put(fake_layers.submission())
    assert (await tick(house)).submissions == 1
    await house.put(fake_layers.submission())
    assert (await tick(house)).submissions == 0
    assert (await house.join("ada")).last_sequence == 1


async def test_agent_is_refused_when_its_base_or_modules_are_others(
    house: hierarchies.House,
) -> None:
    await house.join("ada")
    with pytest.raises(errors.BaseModelMismatchError, match="base"):
        await house.join("bob", base_fingerprint="e" * 64)
    with pytest.raises(errors.BaseModelMismatchError, match="modules"):
        await house.join("bob", shapes={"layers.0.q_proj": weights.Shape(4, 6)})
    with pytest.raises(errors.InvalidInputError, match="name"):
        await house.join("../bob")
    with pytest.raises(errors.PreconditionError, match="join first"):
        await house.put(fake_layers.submission("bob"))
    assert [one.agent for one in (await status(house)).agents] == ["ada"]


def wrong_submissions() -> dict[str, messages.Submission]:
    swarm, agent = levels.Level.SWARM, levels.Level.AGENT
    spec = fake_layers.SPECS[swarm]
    wider = {path: weights.Shape(5, 6) for path in fake_layers.SHAPES}
    infinite = fake_layers.layer(spec.rank)
    infinite["layers.0.q_proj"].a[0, 0] = float("nan")
    missing = {"layers.0.q_proj": fake_layers.layer(spec.rank)["layers.0.q_proj"]}
    return {
        "another rank": messages.Submission("ada", 1, 0, {swarm: fake_layers.layer(7)}, {}),
        "other sides": messages.Submission(
            "ada", 1, 0, {swarm: fake_layers.layer(spec.rank, shapes=wider)}, {}
        ),
        "not a number": messages.Submission("ada", 1, 0, {swarm: infinite}, {}),
        "a module less": messages.Submission("ada", 1, 0, {swarm: missing}, {}),
        "a private layer": messages.Submission("ada", 1, 0, {agent: fake_layers.layer(2)}, {}),
        "another agent": fake_layers.submission("bob"),
        "another number": fake_layers.submission("ada", 2),
    }


@pytest.mark.parametrize("wrong", wrong_submissions())
async def test_submission_is_refused_when_it_does_not_fit(
    house: hierarchies.House, wrong: str
) -> None:
    await house.join("ada")
    with pytest.raises(errors.InvalidInputError):
        await house.put(wrong_submissions()[wrong], agent="ada", sequence=1)
    assert (await status(house)).waiting == 0
    await house.put(fake_layers.submission())
    [ada] = (await status(house)).agents
    assert (ada.submissions, ada.refused, ada.last_sequence) == (1, 1, 1)


async def test_upload_is_refused_when_it_is_no_submission(house: hierarchies.House) -> None:
    await house.join("ada")
    await house.join("bob")
    data = wire.submission_to_bytes(fake_layers.submission())
    for wrong in (b"nothing of the kind", data[: len(data) // 2], data + b"more"):
        with pytest.raises(errors.InvalidInputError):
            await house.put_bytes(wrong, agent="ada", sequence=1)
    for command in ({}, {"agent": "ada"}, {"agent": "ada", "sequence": 0}, {"agent": 1}):
        with pytest.raises(errors.InvalidInputError, match="command"):
            await house.put_bytes(data, **command)  # type: ignore[arg-type]
    with house.flight() as client, pytest.raises(errors.InvalidInputError, match="kind"):
        await asyncio.to_thread(client.put, "card", data, agent="ada", sequence=1)
    assert (await status(house)).waiting == 0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"batches": 2}, errors.UnavailableError),
        ({"size_bytes": 10}, errors.UnavailableError),
        ({"digest": "0" * 64}, errors.UnavailableError),
        ({"size_bytes": 2**40}, errors.InvalidInputError),
        ({"sequence": "1"}, errors.InvalidInputError),
        ({"more": 1}, errors.InvalidInputError),
    ],
)
async def test_upload_is_refused_when_it_is_not_as_announced(
    house: hierarchies.House, change: dict[str, object], kind: type[errors.SkillmeshError]
) -> None:
    await house.join("ada")
    data = wire.submission_to_bytes(fake_layers.submission())
    with pytest.raises(kind):
        await house.put_bytes(data, **{"agent": "ada", "sequence": 1} | change)  # type: ignore[arg-type]
    assert (await status(house)).waiting == 0


async def test_snapshot_is_not_found_when_newer_ones_took_its_place(
    house: hierarchies.House,
) -> None:
    first = (await house.join("ada")).snapshot.digest
    for sequence in range(1, 6):
        await house.put(fake_layers.submission(sequence=sequence))
        await tick(house)
    for digest in (first, "0" * 64):
        with pytest.raises(errors.NotFoundError, match=digest):
            await house.get(digest)
    assert await house.get((await status(house)).snapshot.digest)


async def test_agent_is_held_up_alone_when_it_sends_too_much(tmp_path: pathlib.Path) -> None:
    limits = {"submissions_per_tick": 2, "submissions_per_minute": 0.001, "agents": 2}
    chosen = hierarchies.settings(tmp_path, limits=limits)
    async with hierarchies.running(chosen) as house:
        await house.join("ada")
        await house.join("bob")
        with pytest.raises(errors.CapacityError, match=r"limits\.agents"):
            await house.join("cyd")
        for sequence in (1, 2):
            await house.put(fake_layers.submission(sequence=sequence))
        with pytest.raises(errors.OverloadedError, match="next tick"):
            await house.put(fake_layers.submission(sequence=3))
        await house.put(fake_layers.submission("bob"))
        await tick(house)
        for sequence in (3, 4):
            await house.put(fake_layers.submission(sequence=sequence))
        await tick(house)
        with pytest.raises(errors.OverloadedError, match="a minute"):
            await house.put(fake_layers.submission(sequence=5))


async def test_no_agent_speaks_for_another_when_tokens_are_configured(
    guarded: hierarchies.House,
) -> None:
    await guarded.join("ada", "north")
    await guarded.join("bob", "one")
    for other in ("south", "one", "operator"):
        with pytest.raises(errors.ForbiddenError, match="another token"):
            await guarded.join("ada", other)
        with pytest.raises(errors.ForbiddenError, match="another token"):
            await guarded.put(fake_layers.submission("ada"), other)
    with pytest.raises(errors.ForbiddenError, match="another token"):
        await guarded.put(fake_layers.submission("bob"), "two")
    async with rpc_client.channel(
        guarded.address, protection=guarded.protection("south")
    ) as channel:
        stub = hierarchy_pb2_grpc.HierarchyStub(channel)
        position = hierarchy_pb2.AgentPosition(agent="ada")
        call = stub.Watch(hierarchy_pb2.WatchHierarchyRequest(agents=[position]))
        with pytest.raises(errors.ForbiddenError):
            async with rpc_client.typed_errors():
                await call.read()
    await guarded.put(fake_layers.submission("ada"), "north")
    seen = {
        who: [one.agent for one in (await status(guarded, who)).agents]
        for who in ("north", "south", "one", "operator")
    }
    assert seen == {"north": ["ada"], "south": [], "one": ["bob"], "operator": ["ada", "bob"]}


async def test_only_operators_change_the_whole_when_tokens_are_configured(
    guarded: hierarchies.House,
) -> None:
    joined = await guarded.join("ada", "north")
    for method, request in (
        ("Tick", hierarchy_pb2.TickRequest()),
        ("SetFrozen", hierarchy_pb2.SetFrozenRequest(level="swarm", frozen=True)),
        ("RollBack", hierarchy_pb2.RollBackRequest()),
    ):
        with pytest.raises(errors.ForbiddenError, match="operator"):
            await guarded.call(method, request, "north")
        await guarded.call(method, request, "operator")
    for who in ("", "nobody"):
        with pytest.raises(errors.UnauthenticatedError):
            await guarded.join("ada", who)
        with pytest.raises(errors.UnauthenticatedError):
            await guarded.put(fake_layers.submission("ada"), who)
        with pytest.raises(errors.UnauthenticatedError):
            await guarded.get(joined.snapshot.digest, who)
    with pytest.raises(errors.ForbiddenError, match="peer"):
        await guarded.get(joined.snapshot.digest, "peer")


async def test_layer_is_frozen_and_version_goes_back_when_an_operator_says_so(
    house: hierarchies.House,
) -> None:
    with pytest.raises(errors.PreconditionError, match="no agent"):
        await tick(house)
    await house.join("ada")
    frozen = hierarchy_pb2.SetFrozenRequest(level="domain", frozen=True)
    found = await house.call("SetFrozen", frozen)
    assert [layer.level for layer in found.layers if layer.frozen] == ["domain"]
    for level in ("herd", "agent"):
        with pytest.raises(errors.InvalidInputError, match=level):
            await house.call("SetFrozen", hierarchy_pb2.SetFrozenRequest(level=level))
    with pytest.raises(errors.NotFoundError, match="99"):
        await house.call("RollBack", hierarchy_pb2.RollBackRequest(version=99))
    assert (await house.call("RollBack", hierarchy_pb2.RollBackRequest())).version == 1


async def test_health_is_told_over_both_ways_when_it_is_bad(house: hierarchies.House) -> None:
    request = hierarchy_pb2.GetHealthRequest()
    assert (await house.call("GetHealth", request)).verdict == "healthy"
    await house.join("ada")
    report = await house.call("GetHealth", request)
    assert report.verdict == "warning"
    [measure], [action] = report.measures, report.actions
    assert (measure.area, measure.name, measure.where, measure.value, measure.message) == (
        "entropy", "ratio", "swarm", 1.5, "too high",
    )  # fmt: skip
    assert (action.kind, action.where) == ("raise_threshold", "swarm")
    url = f"http://127.0.0.1:{house.listening.metrics_port}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    lines = set(text.splitlines())
    label = '{area="entropy",name="ratio",where="swarm"}'
    assert {
        f"skillmesh_hierarchy_health_measure{label} 1.5",
        f"skillmesh_hierarchy_health_ok{label} 0.0",
        "skillmesh_hierarchy_healthy 0.0",
        "skillmesh_hierarchy_agents 1.0",
        'skillmesh_hierarchy_layer_entropy{level="swarm"} 0.5',
        'skillmesh_hierarchy_queue_depth{source="swarm",target="domain"} 3.0',
        'skillmesh_hierarchy_agent_submissions_total{agent="ada"} 0.0',
    } <= lines


async def test_command_line_tells_how_the_hierarchy_is(
    tmp_path: pathlib.Path, house: hierarchies.House
) -> None:
    await house.join("ada")
    await house.put(fake_layers.submission())
    await tick(house)
    await house.put(fake_layers.submission(sequence=2))
    await house.call("SetFrozen", hierarchy_pb2.SetFrozenRequest(level="swarm", frozen=True))
    chosen = hierarchies.settings(tmp_path, control=house.address)
    async with peers.connected(chosen) as services:
        assert await services.hierarchy.status() == domain.Hierarchy(
            version=1, tick=1, agents=1, waiting=1, verdict="warning", frozen=("swarm",)
        )


async def test_start_is_refused_when_a_port_is_taken(
    house: hierarchies.House, tmp_path: pathlib.Path
) -> None:
    taken = {
        "hierarchy.flight_address": {"flight_address": f"127.0.0.1:{house.listening.flight_port}"},
        "telemetry.metrics.hierarchy": {"metrics": f"127.0.0.1:{house.listening.metrics_port}"},
    }
    for key, changed in taken.items():
        chosen = hierarchies.settings(tmp_path / key, **changed)
        with pytest.raises(errors.ConfigError, match=key):
            async with hierarchies.running(chosen):
                pass
