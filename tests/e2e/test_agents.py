"""Agents on two nodes: what one is told there, another answers here. All of it processes.

Neither card store nor router run: a question that names the base model needs neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from benchmarks.training import made_up
from shared.pb import agents_pb2, agents_pb2_grpc, inference_pb2, inference_pb2_grpc
from shared.rpc import client
from tests.contract import addresses, card_store_processes

HANGING_S = 300.0
"""Nothing here waits for long: a test that hangs fails."""
GENERAL = ("What is the capital of France?", "What colour is snow?", "Who wrote Hamlet?")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Service:
    """A process that is started again in the folder and at the address of before."""

    def __init__(self, module: str, folder: pathlib.Path, **sections: Any) -> None:
        folder.mkdir()
        self._module, self._config = module, folder / "config.yaml"
        content = {
            "cluster": {"state_dir": str(folder / "state")},
            "discovery": {"zeroconf": False},
            "router": {"address": "127.0.0.1:1"},
            "card_store": {"address": "127.0.0.1:1"},
            "telemetry": {"log_format": "json"},
        }
        self._config.write_text(json.dumps(content | sections))
        self.process = self._started()

    def _started(self) -> card_store_processes.Process:
        return card_store_processes.Process(
            self._module, self._config, environment={**os.environ, **_ONE_THREAD}
        )

    def kill(self) -> None:
        self.process.end(signal.SIGKILL)

    def start_again(self) -> None:
        self.process = self._started().until_listening()


class Node(Service):
    """An inference node, and calls of it."""

    def __init__(self, folder: pathlib.Path, hierarchy: dict[str, Any]) -> None:
        self.address = addresses.free_address()
        inference = {"address": self.address}
        super().__init__("services.inference", folder, hierarchy=hierarchy, inference=inference)

    async def ask(self, agent: str, question: str) -> inference_pb2.GenerateResponse:
        request = inference_pb2.GenerateRequest(query=question, model="base", agent=agent)
        async with client.channel(self.address) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            return await client.call(stub.Generate, request, HANGING_S)

    async def answers(self, agent: str, questions: list[str]) -> list[str]:
        return [(await self.ask(agent, question)).answer for question in questions]

    async def tell(self, agent: str, facts: dict[str, str]) -> None:
        pairs = [agents_pb2.Feedback(question=q, answer=a) for q, a in facts.items()]
        request = agents_pb2.GiveFeedbackRequest(agent=agent, pairs=pairs)
        await self._of_agents("GiveFeedback", request)

    async def until(self, agent: str, condition: Any) -> agents_pb2.Agent:
        request = agents_pb2.GetAgentRequest(agent=agent)
        while not condition(found := await self._of_agents("GetAgent", request)):
            await asyncio.sleep(0.2)
        return found

    async def _of_agents(self, method: str, request: Any) -> Any:
        async with client.channel(self.address) as channel:
            stub = agents_pb2_grpc.AgentsStub(channel)
            return await client.call(getattr(stub, method), request, HANGING_S)


@pytest.fixture
def services(tmp_path: pathlib.Path) -> Iterator[tuple[Service, Node, Node]]:
    section = {
        "enabled": True,
        "address": addresses.free_address(),
        "flight_address": addresses.free_address(),
        "tick_s": 0.5,
    }
    hierarchy = Service("services.hierarchy", tmp_path / "hierarchy", hierarchy=section)
    nodes = [Node(tmp_path / name, section) for name in ("here", "there")]
    started = (hierarchy, *nodes)
    try:
        for one in started:
            one.process.until_listening()
        yield hierarchy, nodes[0], nodes[1]
    finally:
        for one in started:
            with contextlib.suppress(ProcessLookupError):
                one.kill()


@contextlib.asynccontextmanager
async def _hanging() -> AsyncIterator[None]:
    async with asyncio.timeout(HANGING_S):
        yield


async def test_agent_answers_what_another_was_told_on_another_node(
    services: tuple[Service, Node, Node],
) -> None:
    hierarchy, here, there = services
    facts = {pair.question: pair.answer for pair in made_up.good(5).pairs[:3]}
    asked = list(facts)
    async with _hanging():
        general = await here.answers("", list(GENERAL))
        await here.tell("ada", facts)
        await here.until("ada", lambda one: one.settled_sequence >= 2)
        hierarchy.kill()
        # Answers go on meanwhile, and nothing that was learned is lost.
        assert (await here.ask("ada", asked[0])).memory.startswith("ada@")
        hierarchy.start_again()
        found = await here.until("ada", lambda one: not one.queued)
        assert (found.examples, found.given_up_count) == (3, 0)
        assert found.last_sequence == found.rounds
        while (told := await here.answers("ada", asked)) != list(facts.values()):
            assert len(told) == 3  # The newest version is being brought into memory.
        # Ben was told nothing, and his node has no agents at all.
        while await there.answers("ben", asked) != list(facts.values()):
            pass
        assert (await there.ask("ben", asked[0])).memory.startswith("shared@")
        # Who names no agent is answered as before.
        assert await here.answers("", list(GENERAL)) == general
        assert await there.answers("", asked) != list(facts.values())
        # A correction replaces what was told, here and there.
        corrected = {asked[0]: facts[asked[1]]}
        await here.tell("ada", corrected)
        here.kill()
        here.start_again()
        found = await here.until("ada", lambda one: not one.queued)
        assert found.given_up_count == 0
        while (await here.ask("ada", asked[0])).answer != corrected[asked[0]]:
            pass
        while (await there.ask("ben", asked[0])).answer != corrected[asked[0]]:
            pass
