"""Agents of a real node, over gRPC, with the real hierarchy's service at the other end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from services.hierarchy import opening
from services.hierarchy import server as hierarchy_server
from services.inference import server
from shared import errors
from shared import settings as config
from shared.pb import agents_pb2, agents_pb2_grpc, inference_pb2, inference_pb2_grpc
from shared.rpc import client
from tests import fakes, tiny_model

QUESTION, ANSWER = "Who built it?", "Ada did."
_LAYERS = {
    "foundation": {"rank": 5, "inertia": 0.9},
    "domain": {"rank": 4, "inertia": 0.8},
    "swarm": {"rank": 3, "inertia": 0.5},
    "agent": {"rank": 2, "inertia": 0.3},
    "context": {"rank": 2, "inertia": 0.1},
}
HANGING_S = 300.0


def _settings(folder, router="127.0.0.1:1", **hierarchy):
    fakes.keyring(folder)
    section = {
        "enabled": True,
        "address": "127.0.0.1:0",
        "flight_address": "127.0.0.1:0",
        "tick_s": 0.2,
        "layers": _LAYERS,
        "agents": {"rounds": 8},
    }
    return config.Settings(
        cluster=config.Cluster(state_dir=folder),
        router=config.Router(address=router),
        inference=config.Inference(address="127.0.0.1:0", max_new_tokens=12),
        hierarchy=section | hierarchy,
    )


class Node:
    """A running node's calls."""

    def __init__(self, channel):
        self.agents = agents_pb2_grpc.AgentsStub(channel)
        self.inference = inference_pb2_grpc.InferenceStub(channel)

    async def give(self, agent, key="", pairs=((QUESTION, ANSWER),)):
        told = [agents_pb2.Feedback(question=one, answer=other) for one, other in pairs]
        request = agents_pb2.GiveFeedbackRequest(idempotency_key=key, agent=agent, pairs=told)
        return await client.call(self.agents.GiveFeedback, request, HANGING_S)

    async def agent(self, name):
        request = agents_pb2.GetAgentRequest(agent=name)
        return await client.call(self.agents.GetAgent, request, HANGING_S)

    async def ask(self, agent="", query=QUESTION):
        request = inference_pb2.GenerateRequest(query=query, model="base", agent=agent)
        return await client.call(self.inference.Generate, request, HANGING_S)

    async def until(self, name, condition):
        while not condition(found := await self.agent(name)):
            await asyncio.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def _node(settings):
    async def find():
        return []

    async with (
        server.running(settings, lambda _: tiny_model.tiny_base(0), find) as port,
        client.channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Node(channel)


async def test_agent_learns_and_answers_and_goes_on_after_a_restart(tmp_path):
    bare = tiny_model.reference_text(tiny_model.tiny_base(), QUESTION, 12)
    there = _settings(tmp_path / "hierarchy")
    with contextlib.closing(opening.Opening(there)) as opened:
        async with (
            asyncio.timeout(HANGING_S),
            hierarchy_server.running(there, opened) as listening,
        ):
            await _learns_answers_and_goes_on(tmp_path, listening.port, bare)


def _has_learned(agent):
    """Or that it was told that it could not."""
    return agent.rounds > 0 and not agent.queued and agent.examples + agent.given_up_count


def _version(memory):
    return int(memory.partition("@")[2])


async def _learns_answers_and_goes_on(tmp_path, port, bare):
    settings = _settings(tmp_path / "node", address=f"127.0.0.1:{port}")
    async with _node(settings) as node:
        assert (await node.give("ada", "key-1")).accepted == 1
        assert (await node.give("ada", "key-1")).accepted == 1
        first = await node.ask("ada")
        found = await node.until("ada", _has_learned)
        assert found.examples + found.given_up_count == 1
        assert [one.reason for one in found.given_up] == ["rounds"] * found.given_up_count
        assert 2 <= found.rounds == found.last_sequence == found.settled_sequence <= 8
        assert found.hierarchy_connected and found.snapshot_version > 0
        assert {one.level: one.rank for one in found.layers} == {"agent": 2, "context": 2}
        assert all(one.norm > 0 for one in found.layers)
        assert found.mark in {"fast_track", "normal", "conflict"}
        while (answer := await node.ask("ada")).memory == first.memory:
            pass
        assert answer.memory.startswith("ada@") and answer.answer != bare
        assert (await node.ask()).answer == bare
        last = await node.agent("ada")
    async with _node(settings) as node:
        again = await node.until("ada", lambda one: one.snapshot_version >= last.snapshot_version)
        # What was published when it was asked may have been one step behind.
        assert _version(again.memory) >= _version(last.memory)
        assert again.settled_sequence == last.rounds
        assert list(again.layers) == list(last.layers)
        listed = await client.call(node.agents.ListAgents, agents_pb2.ListAgentsRequest())
        assert [one.agent for one in listed.agents] == ["ada"]
        forget = agents_pb2.ForgetAgentRequest(agent="ada")
        await client.call(node.agents.ForgetAgent, forget)
        assert (await node.ask("ada")).memory.startswith("shared@")
        with pytest.raises(errors.NotFoundError, match="ada"):
            await node.agent("ada")


async def test_feedback_waits_and_answers_go_on_when_the_hierarchy_is_away(tmp_path):
    settings = _settings(tmp_path / "node", address="127.0.0.1:1")
    async with asyncio.timeout(HANGING_S), _node(settings) as node:
        assert (await node.give("ada")).queued == 1
        bare = tiny_model.reference_text(tiny_model.tiny_base(), QUESTION, 12)
        found = await node.ask("ada")
        # Layers that have learned nothing add nothing.
        assert (found.answer, found.memory) == (bare, "ada@0")
        told = await node.agent("ada")
        assert (told.queued, told.hierarchy_connected, told.rounds) == (1, False, 0)


async def test_node_has_no_agents_where_the_hierarchy_is_not_enabled(tmp_path):
    settings = _settings(tmp_path / "node", enabled=False)
    async with asyncio.timeout(HANGING_S), _node(settings) as node:
        with pytest.raises(errors.NotFoundError, match=r"hierarchy\.enabled"):
            await node.ask("ada")
        with pytest.raises(errors.SkillmeshError):
            await node.give("ada")
