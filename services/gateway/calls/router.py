"""Calls to the router, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from typing import Any

import grpc.aio
from google.protobuf import json_format

from services.gateway import domain
from shared.pb import router_pb2, router_pb2_grpc
from shared.rpc import client


class RouterCalls:
    """The router."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = router_pb2_grpc.RouterStub(channel)

    async def explain(self, query: str, top_k: int, threshold: float | None) -> dict[str, Any]:
        """Why the router decides a question as it does: fields as in `protos/router.proto`.

        Args:
            query: the question.
            top_k: cards to take apart.
            threshold: 0 to 1; None for the router's own.
        """
        request = router_pb2.ExplainRouteRequest(query=query, top_k=top_k, threshold=threshold)
        reply = await client.call(self._stub.ExplainRoute, request)
        return json_format.MessageToDict(
            reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )

    async def route(
        self, query: str, no_learning: bool, tenant: str, deadline_s: float
    ) -> domain.Route:
        """The card that fits; where none does, a learning task may begin.

        Args:
            query: the question.
            no_learning: no event leaves for it.
            tenant: whose question it is; empty where that is not one tenant's.
            deadline_s: for the answer.
        """
        request = router_pb2.RouteRequest(query=query, no_learning=no_learning, tenant=tenant)
        reply = await client.call(self._stub.Route, request, deadline_s)
        best = next(iter(reply.candidates), router_pb2.RouteCandidate())
        fits = not reply.dissonance
        return domain.Route(
            card=best.card if fits else "",
            reading=best.reading or best.nearest_example if fits else "",
            similarity=best.similarity,
            confidence=reply.confidence,
            dissonance=reply.dissonance,
            event_id=reply.event_id,
        )
