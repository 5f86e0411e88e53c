"""The way to the router: translates what it says to the node's dataclasses, and nothing else."""

from __future__ import annotations

from typing import Any

from services.inference import answering
from shared.pb import router_pb2
from shared.rpc import client

_TOP_K = 4
"""Candidates asked of the router: the best one may not be on this node."""


class RouterClient:
    """The way to the router; `route` is an `answering.Route`."""

    def __init__(self, stub: Any) -> None:
        """Takes the stub of the router's service."""
        self._stub = stub

    async def route(self, query: str, no_learning: bool, deadline_s: float) -> answering.Routing:
        """Asks for the cards that fit.

        Raises:
            errors.SkillmeshError: the router can't be reached, or what it answered, typed.
        """
        request = router_pb2.RouteRequest(query=query, top_k=_TOP_K, no_learning=no_learning)
        response = await client.call(self._stub.Route, request, deadline_s)
        return answering.Routing(
            candidates=tuple(
                answering.Candidate(
                    found.card, found.probability, found.similarity, found.nearest_example
                )
                for found in response.candidates
            ),
            none_probability=response.none_probability,
            confidence=response.confidence,
            dissonance=response.dissonance,
            event_id=response.event_id,
        )
