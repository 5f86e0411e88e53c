"""Translates protobuf to and from the hierarchy's dataclasses, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from services.hierarchy import coordinator, members, port, snapshot_files, status
from shared.pb import hierarchy_pb2, hierarchy_pb2_grpc
from shared.rpc import access, hierarchy_messages
from shared.security import callers


class HierarchyService(hierarchy_pb2_grpc.HierarchyServicer):
    """`skillmesh.v1.Hierarchy`."""

    def __init__(
        self,
        coordinated: coordinator.Coordinator,
        flight_address: Callable[[], str],
        admitted: callers.Callers,
    ) -> None:
        """Takes what does the work, where the data plane listens, and those who may call."""
        self._coordinator, self._flight_address = coordinated, flight_address
        self._admitted = admitted

    def add_to(self, server: grpc.aio.Server) -> str:
        """Registers the service and returns its full name."""
        hierarchy_pb2_grpc.add_HierarchyServicer_to_server(self, server)
        return hierarchy_pb2.DESCRIPTOR.services_by_name["Hierarchy"].full_name

    async def Join(
        self, request: hierarchy_pb2.JoinRequest, context: Any
    ) -> hierarchy_pb2.JoinResponse:
        """Makes an agent known."""
        base = members.Base(request.base_fingerprint, hierarchy_messages.shapes(request.modules))
        joined = await self._coordinator.join(
            request.agent, request.node, self._owner(context), base
        )
        return hierarchy_pb2.JoinResponse(
            specs=hierarchy_messages.spec_messages(joined.specs),
            snapshot=_ticket(joined.snapshot),
            flight_address=self._flight_address(),
            last_sequence=joined.last_sequence,
        )

    async def Watch(
        self, request: hierarchy_pb2.WatchHierarchyRequest, context: Any
    ) -> AsyncGenerator[hierarchy_pb2.HierarchyNews, None]:
        """Snapshots and settlements, and heartbeats between."""
        positions = {one.agent: one.after for one in request.agents}
        watching = self._coordinator.watch(positions, self._owner(context))
        async with contextlib.aclosing(watching):
            async for news in watching:
                yield hierarchy_pb2.HierarchyNews(
                    snapshot=None if news.snapshot is None else _ticket(news.snapshot),
                    settlements=[
                        hierarchy_messages.settlement_message(one) for one in news.settlements
                    ],
                )

    async def Tick(
        self, request: hierarchy_pb2.TickRequest, context: Any
    ) -> hierarchy_pb2.TickResponse:
        """One tick now."""
        ticked = await self._coordinator.tick(request.idempotency_key)
        return hierarchy_pb2.TickResponse(
            tick=ticked.report.tick,
            version=ticked.report.version,
            submissions=ticked.report.submissions,
            migrations=ticked.report.migrations,
            seconds=ticked.seconds,
        )

    async def GetHealth(
        self, request: hierarchy_pb2.GetHealthRequest, context: Any
    ) -> hierarchy_pb2.HealthReport:
        """How the hierarchy was after the last tick."""
        layers = self._coordinator.layers
        if layers is None:
            return hierarchy_pb2.HealthReport(verdict="healthy")
        return _health(await asyncio.to_thread(layers.health))

    async def GetHierarchyStatus(
        self, request: hierarchy_pb2.GetHierarchyStatusRequest, context: Any
    ) -> hierarchy_pb2.HierarchyStatus:
        """All that can be seen from outside."""
        return await self._status(context)

    async def SetFrozen(
        self, request: hierarchy_pb2.SetFrozenRequest, context: Any
    ) -> hierarchy_pb2.HierarchyStatus:
        """Freezes a shared layer, or thaws it."""
        level = hierarchy_messages.level(request.level)
        await self._coordinator.set_frozen(level, request.frozen)
        return await self._status(context)

    async def RollBack(
        self, request: hierarchy_pb2.RollBackRequest, context: Any
    ) -> hierarchy_pb2.HierarchyStatus:
        """Goes back to a snapshot."""
        await self._coordinator.roll_back(request.version, request.idempotency_key)
        return await self._status(context)

    def _owner(self, context: Any) -> str:
        return members.owner_of(self._caller(context))

    def _caller(self, context: Any) -> callers.Caller:
        caller = access.caller_of(self._admitted, context.invocation_metadata())
        return caller

    async def _status(self, context: Any) -> hierarchy_pb2.HierarchyStatus:
        caller = self._caller(context)
        # An operator of all tenants sees all agents, others their own.
        owner = None if caller.tenants is None else members.owner_of(caller)
        found = await asyncio.to_thread(status.of, self._coordinator, owner)
        return hierarchy_pb2.HierarchyStatus(
            version=found.version,
            tick=found.tick,
            base_fingerprint=found.base_fingerprint,
            modules=found.modules,
            layers=[_layer(one) for one in found.layers],
            agents=[_agent(one) for one in found.agents],
            queues=[_queue(one) for one in found.queues],
            waiting=found.waiting,
            flight_address=self._flight_address(),
            snapshot=None if found.snapshot is None else _ticket(found.snapshot),
        )


def _ticket(ticket: snapshot_files.Ticket) -> hierarchy_pb2.SnapshotTicket:
    return hierarchy_pb2.SnapshotTicket(
        version=ticket.version, digest=ticket.digest, size_bytes=ticket.size_bytes
    )


def _health(health: port.Health) -> hierarchy_pb2.HealthReport:
    return hierarchy_pb2.HealthReport(
        tick=health.tick,
        version=health.version,
        verdict=health.verdict,
        measures=[
            hierarchy_pb2.Measure(
                area=one.area,
                name=one.name,
                where=one.where,
                value=one.value,
                verdict=one.verdict,
                message=one.message,
            )
            for one in health.measures
        ],
        actions=[
            hierarchy_pb2.HealthAction(
                tick=one.tick, kind=one.kind, where=one.where, reason=one.reason
            )
            for one in health.actions
        ],
    )


def _layer(layer: port.LayerState) -> hierarchy_pb2.LayerStatus:
    return hierarchy_pb2.LayerStatus(
        level=layer.level,
        rank=layer.rank,
        inertia=layer.inertia,
        entropy=layer.entropy,
        entropy_optimum=layer.optimum,
        threshold=layer.threshold,
        screened_share=layer.screened_share,
        norm=layer.norm,
        frozen=layer.frozen,
        parameters=layer.parameters,
    )


def _agent(agent: status.AgentState) -> hierarchy_pb2.AgentStatus:
    return hierarchy_pb2.AgentStatus(
        agent=agent.member.agent,
        node=agent.member.node,
        last_sequence=agent.last_sequence,
        settled_sequence=agent.totals.settled,
        submissions=agent.activity.taken,
        refused=agent.activity.refused + agent.totals.refused,
        examples=agent.totals.examples,
        joined_at_ms=agent.member.joined_at_ms,
        seen_at_ms=agent.activity.seen_at_ms,
    )


def _queue(queue: port.QueueState) -> hierarchy_pb2.QueueStatus:
    return hierarchy_pb2.QueueStatus(
        source=queue.source,
        target=queue.target,
        depth=queue.depth,
        longest_wait=queue.longest_wait,
        bandwidth_left=queue.bandwidth_left,
    )
