"""Translates protobuf to and from what a node knows of its agents, and nothing else."""

from __future__ import annotations

from typing import Any

from services.inference.agents import agents, describing, feedback
from shared.pb import agents_pb2, agents_pb2_grpc


class AgentsService(agents_pb2_grpc.AgentsServicer):
    """`skillmesh.v1.Agents`."""

    def __init__(self, own: agents.Agents) -> None:
        """Takes the agents of this node."""
        self._own = own

    async def GiveFeedback(
        self, request: agents_pb2.GiveFeedbackRequest, context: Any
    ) -> agents_pb2.GiveFeedbackResponse:
        """Has an agent learn right answers."""
        pairs = [feedback.Pair(one.question, one.answer) for one in request.pairs]
        given = await self._own.give_feedback(request.agent, request.idempotency_key, pairs)
        return agents_pb2.GiveFeedbackResponse(accepted=given.accepted, queued=given.queued)

    async def GetAgent(self, request: agents_pb2.GetAgentRequest, context: Any) -> agents_pb2.Agent:
        """Tells of one agent."""
        return _agent(await describing.one(self._own, request.agent))

    async def ListAgents(
        self, request: agents_pb2.ListAgentsRequest, context: Any
    ) -> agents_pb2.ListAgentsResponse:
        """Tells of all; of the layers of those that are in memory alone."""
        found = await describing.every(self._own)
        return agents_pb2.ListAgentsResponse(agents=[_agent(one) for one in found])

    async def ForgetAgent(
        self, request: agents_pb2.ForgetAgentRequest, context: Any
    ) -> agents_pb2.ForgetAgentResponse:
        """Drops an agent's own layers."""
        await self._own.forget(request.agent)
        return agents_pb2.ForgetAgentResponse()


def _agent(found: describing.Described) -> agents_pb2.Agent:
    record = found.record
    return agents_pb2.Agent(
        agent=record.agent,
        memory=found.memory,
        snapshot_version=found.snapshot_version,
        examples=record.examples,
        queued=found.queued,
        rounds=record.rounds,
        last_sequence=found.last_sequence,
        settled_sequence=record.settled,
        mark=record.mark,
        layers=[
            agents_pb2.AgentLayer(
                level=one.level,
                rank=one.rank,
                entropy=one.entropy,
                norm=one.norm,
                screened_share=one.screened_share,
            )
            for one in found.layers
        ],
        trajectories=found.trajectories,
        hit_rate=found.hit_rate,
        circuits_moved=found.circuits_moved,
        hierarchy_connected=found.connected,
        given_up_count=found.given_up_count,
        refused=found.refused,
        given_up=[
            agents_pb2.GivenUp(
                question=one.pair.question, answer=one.pair.answer, reason=one.reason
            )
            for one in found.given_up
        ],
    )
