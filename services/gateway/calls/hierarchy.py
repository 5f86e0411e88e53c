"""Calls to the layers that agents share, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.gateway import domain
from shared.pb import hierarchy_pb2, hierarchy_pb2_grpc
from shared.rpc import client


class HierarchyCalls:
    """The layers that agents share."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = hierarchy_pb2_grpc.HierarchyStub(channel)

    async def status(self) -> domain.Hierarchy:
        """The layers that agents share."""
        request = hierarchy_pb2.GetHierarchyStatusRequest()
        status = await client.call(self._stub.GetHierarchyStatus, request)
        health = await client.call(self._stub.GetHealth, hierarchy_pb2.GetHealthRequest())
        return domain.Hierarchy(
            version=status.version,
            tick=status.tick,
            agents=len(status.agents),
            waiting=status.waiting,
            verdict=health.verdict,
            frozen=tuple(layer.level for layer in status.layers if layer.frozen),
        )

    async def whole(self) -> domain.SharedLayers:
        """The layers that agents share, in full."""
        request = hierarchy_pb2.GetHierarchyStatusRequest()
        status = await client.call(self._stub.GetHierarchyStatus, request)
        health = await client.call(self._stub.GetHealth, hierarchy_pb2.GetHealthRequest())
        return domain.SharedLayers(
            version=status.version,
            tick=status.tick,
            waiting=status.waiting,
            verdict=health.verdict,
            layers=tuple(_layer(one) for one in status.layers),
            members=tuple(_member(one) for one in status.agents),
            channels=tuple(
                domain.Channel(
                    one.source, one.target, one.depth, one.longest_wait, one.bandwidth_left
                )
                for one in status.queues
            ),
            measures=tuple(
                domain.Measure(one.area, one.name, one.where, one.value, one.verdict, one.message)
                for one in health.measures
            ),
            actions=tuple(
                domain.Action(one.tick, one.kind, one.where, one.reason)
                for one in reversed(health.actions)
            ),
        )


def _layer(message: Any) -> domain.Layer:
    return domain.Layer(
        level=message.level,
        rank=message.rank,
        inertia=message.inertia,
        entropy=message.entropy,
        entropy_optimum=message.entropy_optimum,
        screened_share=message.screened_share,
        norm=message.norm,
        frozen=message.frozen,
        parameters=message.parameters,
    )


def _member(message: Any) -> domain.Member:
    return domain.Member(
        agent=message.agent,
        node=message.node,
        submissions=message.submissions,
        refused=message.refused,
        examples=message.examples,
        is_settled=message.last_sequence == message.settled_sequence,
        seen_at_ms=message.seen_at_ms,
    )
