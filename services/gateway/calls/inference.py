"""Calls to the inference node, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.gateway import domain
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import client

_ASK_DEADLINE_S = 120.0


class InferenceCalls:
    """The inference node."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = inference_pb2_grpc.InferenceStub(channel)

    async def ask(
        self, query: str, no_learning: bool = False, model: str = "auto", agent: str = ""
    ) -> domain.Answer:
        """Asks the inference node.

        Args:
            query: what.
            no_learning: an unknown question starts no learning.
            model: `auto`: the router decides; `base`; the reference of a card.
            agent: whose memory answers; empty for none.
        """
        request = inference_pb2.GenerateRequest(
            query=query, model=model, no_learning=no_learning, agent=agent
        )
        reply = await client.call(self._stub.Generate, request, _ASK_DEADLINE_S)
        return domain.Answer(
            text=reply.answer,
            card=reply.card,
            confidence=reply.confidence,
            dissonance=reply.dissonance,
            event_id=reply.event_id,
            rewritten_query=reply.rewritten_query,
            shares=tuple((one.card, one.weight) for one in reply.cards),
            memory=reply.memory,
        )

    async def status(self, deadline_s: float = client.DEFAULT_DEADLINE_S) -> domain.Node:
        """The inference node."""
        request = inference_pb2.GetNodeStatusRequest()
        reply = await client.call(self._stub.GetNodeStatus, request, deadline_s)
        return domain.Node(
            base_model=reply.base_model,
            served=tuple(reply.served),
            resident=tuple(reply.resident),
            revision=reply.revision,
            store_connected=reply.store_connected,
            swaps=tuple(
                domain.Swap(card=swap.card, fetch_ms=swap.fetch_ms, swap_ms=swap.swap_ms)
                for swap in reply.swaps
            ),
            node_id=reply.node_id,
            base_fingerprint=reply.base_fingerprint,
            pinned=tuple(reply.pinned),
            held_bytes=reply.held_bytes,
            running=reply.running,
            most_rows=reply.most_rows,
            waiting=reply.waiting,
            queue=reply.queue,
        )
