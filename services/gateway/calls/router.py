"""Calls to the router, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio
from google.protobuf import json_format

from services.gateway import domain
from shared.pb import router_pb2, router_pb2_grpc
from shared.rpc import client, embedding

_EMBED_DEADLINE_S = 60.0


class RouterCalls:
    """The router."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._channel = channel
        self._stub: Any = router_pb2_grpc.RouterStub(channel)

    async def is_serving(self, deadline_s: float) -> bool:
        """Whether it says in time that it serves."""
        return await client.is_serving(self._channel, deadline_s)

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

    async def status(self) -> domain.Router:
        """The router: what it knows, how well calibrated, what became of its events."""
        request = router_pb2.GetRouterStatusRequest()
        told = await client.call(self._stub.GetRouterStatus, request)
        known = told.HasField("calibration_error")
        return domain.Router(
            cards=told.card_count,
            revision=told.revision,
            threshold=told.threshold,
            embedder_id=told.embedder_id,
            events_emitted=told.events_emitted,
            events_delivered=told.events_delivered,
            events_dropped=told.events_dropped,
            events_waiting=told.events_waiting,
            calibration_error=told.calibration_error if known else None,
            calibration_rows=told.calibration_rows,
            bins=tuple(
                domain.Bin(one.probability, one.share, one.mass) for one in told.calibration_bins
            ),
        )

    async def embed(self, texts: Sequence[str]) -> embedding.Vectors:
        """Unit vectors, shape (texts, dimension), float32; of at most 2,000 texts."""
        return await embedding.embed(self._stub, texts, _EMBED_DEADLINE_S)

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
