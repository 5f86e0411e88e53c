"""The way to the router: translates what it says to the node's dataclasses, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from services.inference import answering
from shared import answer_signals, errors, inference_settings
from shared.pb import router_pb2
from shared.rpc import client, embedding, signal_messages
from shared.security import callers

_TOP_K = inference_settings.MOST_CARDS
"""Candidates asked of the router: the best one may not be on this node."""
_MOST_REPORTS = 256
"""Under way at the same time; an event whose report is left out goes without."""
_REPORT_DEADLINE_S = 5.0
_EMBED_DEADLINE_S = 5.0
_log = structlog.get_logger(__name__)


class RouterClient:
    """The way to the router; `route` is an `answering.Route`."""

    def __init__(self, stub: Any) -> None:
        """Takes the stub of the router's service."""
        self._stub = stub
        self._reports: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Gives up the reports under way."""
        for task in self._reports:
            task.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)

    def report(self, event_id: str, signals: answer_signals.AnswerSignals | None) -> None:
        """Tells how the base model answered, on the side; a `semantic_entropy.Report`."""
        if len(self._reports) >= _MOST_REPORTS:
            _log.warning("answer not reported: too many reports under way", event_id=event_id)
            return
        request = router_pb2.ReportAnswerRequest(
            event_id=event_id, signals=signal_messages.message(signals)
        )
        task = asyncio.create_task(self._send(request))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def embed(self, texts: Sequence[str]) -> embedding.Vectors:
        """Unit vectors of texts, (texts, dimension); see `embedding.embed`."""
        return await embedding.embed(self._stub, texts, _EMBED_DEADLINE_S)

    async def _send(self, request: router_pb2.ReportAnswerRequest) -> None:
        try:
            await client.call(self._stub.ReportAnswer, request, _REPORT_DEADLINE_S)
        except errors.SkillmeshError as error:
            # The event leaves without, after a while.
            _log.info("answer not reported", event_id=request.event_id, reason=str(error))

    async def route(
        self, query: str, no_learning: bool, deadline_s: float, tenants: callers.Tenants = None
    ) -> answering.Routing:
        """Asks for the cards that fit.

        Args:
            query: the question.
            no_learning: no event leaves for it.
            deadline_s: for the answer.
            tenants: whose question it is, and whose cards may answer it.

        Raises:
            errors.SkillmeshError: the router can't be reached, or what it answered, typed.
        """
        request = router_pb2.RouteRequest(
            query=query,
            top_k=_TOP_K,
            no_learning=no_learning,
            reports_answer=True,
            tenant=callers.only_tenant(tenants),
        )
        if tenants is not None:
            request.tenants.names.extend(sorted(tenants))
            request.tenants.SetInParent()
        response = await client.call(self._stub.Route, request, deadline_s)
        return answering.Routing(
            candidates=tuple(
                answering.Candidate(
                    found.card,
                    found.probability,
                    found.similarity,
                    found.reading or found.nearest_example,
                )
                for found in response.candidates
            ),
            none_probability=response.none_probability,
            confidence=response.confidence,
            dissonance=response.dissonance,
            event_id=response.event_id,
        )
