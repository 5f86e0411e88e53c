"""The hierarchy as a process of its own: killed at any moment, it loses and doubles nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
from collections.abc import Iterator

import pytest

from shared import errors
from shared.hierarchy import levels, weights
from shared.pb import hierarchy_pb2, hierarchy_pb2_grpc
from shared.rpc import client as rpc_client
from tests import fake_layers
from tests.contract import addresses, card_store_processes, hierarchies

AGENTS = ("ada", "bob", "cyd", "dot")
ROUNDS = 12


class Service:
    """Started again and again in one folder, at one address."""

    def __init__(self, root: pathlib.Path, tick_s: float) -> None:
        self.address = addresses.free_address()
        chosen = hierarchies.settings(root, control=self.address, tick_s=tick_s)
        content = chosen.model_dump(mode="json", include={"cluster", "hierarchy"})
        self.config = root / "config.yaml"
        self.config.write_text(json.dumps(content | {"telemetry": {"log_format": "json"}}))
        self.process: card_store_processes.Process | None = None
        self.start()

    def start(self) -> None:
        self.process = card_store_processes.Process("services.hierarchy", self.config)
        self.process.until_listening()

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        return self.process.end(number)

    async def status(self) -> hierarchy_pb2.HierarchyStatus:
        async with rpc_client.channel(self.address) as channel:
            stub = hierarchy_pb2_grpc.HierarchyStub(channel)
            request = hierarchy_pb2.GetHierarchyStatusRequest()
            return await rpc_client.call(stub.GetHierarchyStatus, request, 30)

    async def tick(self) -> hierarchy_pb2.TickResponse:
        async with rpc_client.channel(self.address) as channel:
            stub = hierarchy_pb2_grpc.HierarchyStub(channel)
            return await rpc_client.call(stub.Tick, hierarchy_pb2.TickRequest(), 60)


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Iterator[Service]:
    opened = Service(tmp_path, tick_s=3600.0)
    yield opened
    with contextlib.suppress(ProcessLookupError):
        opened.end(signal.SIGKILL)


async def test_every_submission_is_settled_once_when_the_process_is_killed_again_and_again(
    tmp_path: pathlib.Path,
) -> None:
    service, heard = Service(tmp_path, tick_s=0.02), hierarchies.Listener()
    try:
        async with hierarchies.node(service.address, tmp_path / "node", heard) as client:
            for agent in AGENTS:
                client.follow(agent, settled=0)
            for sequence in range(1, ROUNDS + 1):
                for at, agent in enumerate(AGENTS):
                    client.submit(fake_layers.submission(agent, sequence, seed=sequence * 7 + at))
                if sequence % 4 == 0:
                    # At whatever it is doing: some is on its way, some waits, some is in a tick.
                    await heard.until(lambda: len(heard.settlements) >= len(AGENTS))
                    await asyncio.to_thread(service.end, signal.SIGKILL)
                    await asyncio.to_thread(service.start)
            await heard.until(lambda: len(heard.settlements) == ROUNDS * len(AGENTS), 120)
            await heard.until(lambda: client.connected)
            for agent in AGENTS:
                told = [sequence for name, sequence in heard.settled if name == agent]
                assert told == list(range(1, ROUNDS + 1))
                assert client.waiting(agent) == []
        # Settlements are told the moment a tick is committed; its figures follow.
        async with asyncio.timeout(60):
            while (found := await service.status()).waiting or any(
                one.examples < ROUNDS for one in found.agents
            ):
                await asyncio.sleep(0.02)
        # Each brought one example: any that counted twice would show here.
        assert {one.agent: one.examples for one in found.agents} == dict.fromkeys(AGENTS, ROUNDS)
        assert found.version > 0
        assert await asyncio.to_thread(service.end) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            service.end(signal.SIGKILL)


async def test_state_is_the_same_when_the_process_was_killed(service: Service) -> None:
    house = await hierarchies.House.located(service.address)
    for agent in AGENTS:
        await house.join(agent)
    for sequence in (1, 2):
        for at, agent in enumerate(AGENTS):
            await house.put(fake_layers.submission(agent, sequence, seed=at))
        await service.tick()
    for at, agent in enumerate(AGENTS):
        await house.put(fake_layers.submission(agent, 3, seed=at))
    before = await service.status()
    assert before.waiting == len(AGENTS) and before.version == 2
    await asyncio.to_thread(service.end, signal.SIGKILL)
    await asyncio.to_thread(service.start)
    after = await service.status()
    assert after.snapshot == before.snapshot and after.waiting == before.waiting
    for layer in before.layers:  # Measured by ticks, of which this process has made none.
        layer.entropy = layer.entropy_optimum = 0
    assert list(after.layers) == list(before.layers)
    house = await hierarchies.House.located(service.address)
    joined = await house.join("ada")
    assert joined.last_sequence == 3
    assert len(await house.get(joined.snapshot.digest)) == joined.snapshot.size_bytes
    # Sent again by a node that did not hear that it had arrived.
    await house.put(fake_layers.submission("ada", 3, seed=0))
    assert (await service.tick()).submissions == len(AGENTS)
    with pytest.raises(errors.BaseModelMismatchError):
        house = await hierarchies.House.located(service.address)
        await house.join("eve", shapes={"layers.0.q_proj": weights.Shape(4, 6)})


async def test_shared_layers_move_when_agents_agree(service: Service) -> None:
    house = await hierarchies.House.located(service.address)
    for agent in AGENTS:
        await house.join(agent)
        await house.put(fake_layers.submission(agent, 1, seed=3))
    made = await service.tick()
    assert (made.submissions, made.version) == (len(AGENTS), 1)
    swarm = next(one for one in (await service.status()).layers if one.level == "swarm")
    assert swarm.norm > 0 and swarm.rank == fake_layers.SPECS[levels.Level.SWARM].rank


async def test_process_does_not_start_when_ranks_are_no_longer_those_it_was_made_with(
    service: Service,
) -> None:
    house = await hierarchies.House.located(service.address)
    await house.join("ada")
    await asyncio.to_thread(service.end)
    content = json.loads(service.config.read_text())
    content["hierarchy"]["layers"]["swarm"]["rank"] = 5
    service.config.write_text(json.dumps(content))
    process = card_store_processes.Process("services.hierarchy", service.config)
    assert await asyncio.to_thread(process.wait) == 2
    assert "hierarchy.layers" in "".join(process.log)


async def test_second_process_does_not_start_when_one_has_the_folder(
    service: Service, tmp_path: pathlib.Path
) -> None:
    house = await hierarchies.House.located(service.address)
    await house.join("ada")
    content = json.loads(service.config.read_text())
    content["hierarchy"]["address"] = "127.0.0.1:0"
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(content))
    process = card_store_processes.Process("services.hierarchy", other)
    assert await asyncio.to_thread(process.wait) == 2
    assert "another process" in "".join(process.log)
    assert (await service.status()).base_fingerprint == hierarchies.BASE
