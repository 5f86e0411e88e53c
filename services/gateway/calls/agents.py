"""Calls to the agents of the inference node, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio

from services.gateway import domain
from shared.pb import agents_pb2, agents_pb2_grpc
from shared.rpc import client


class AgentsCalls:
    """The agents of the inference node."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = agents_pb2_grpc.AgentsStub(channel)

    async def tell(self, agent: str, pairs: Sequence[tuple[str, str]], idempotency_key: str) -> int:
        """Gives an agent questions with right answers; returns how many it has to learn now."""
        request = agents_pb2.GiveFeedbackRequest(
            idempotency_key=idempotency_key,
            agent=agent,
            pairs=[agents_pb2.Feedback(question=q, answer=a) for q, a in pairs],
        )
        reply = await client.call(self._stub.GiveFeedback, request)
        return int(reply.queued)

    async def one(self, name: str) -> domain.Agent:
        """One agent of the node."""
        request = agents_pb2.GetAgentRequest(agent=name)
        return _agent(await client.call(self._stub.GetAgent, request))

    async def all(self) -> list[domain.Agent]:
        """All agents of the node."""
        reply = await client.call(self._stub.ListAgents, agents_pb2.ListAgentsRequest())
        return [_agent(one) for one in reply.agents]


def _agent(message: Any) -> domain.Agent:
    return domain.Agent(
        agent=message.agent,
        memory=message.memory,
        examples=message.examples,
        queued=message.queued,
        rounds=message.rounds,
        is_settled=message.last_sequence == message.settled_sequence,
        mark=message.mark,
        hit_rate=message.hit_rate,
        connected=message.hierarchy_connected,
        refused=message.refused,
        given_up_count=message.given_up_count,
        given_up=tuple((one.question, one.reason) for one in message.given_up),
    )
