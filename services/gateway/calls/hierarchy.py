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
