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
