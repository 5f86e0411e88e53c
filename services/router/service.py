"""Translates protobuf to and from the router's dataclasses, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from services.router import decision as decisions
from services.router import (
    dissonance,
    embedding,
    explanation,
    profile,
    rehearsal,
    spool,
    subscriber,
)
from services.router import router as routers
from shared import errors
from shared.cards import manifest as manifests
from shared.pb import factory_pb2, router_pb2, router_pb2_grpc
from shared.rpc import access, signal_messages
from shared.security import callers
from shared.telemetry import tracing

MOST_TEXTS = 2_000
"""Texts of one Embed call: 3 MB of vectors, below gRPC's usual limit of 4 MiB."""
LONGEST_TEXT_CHARACTERS = 8_000
MOST_CARDS_TOLD = 1_000
"""Identities in one status: 100 KB."""
_NEAR = 0.5
"""Cosine from which on the nearest card tells the domain of a question that it does not fit."""


class RouterService(router_pb2_grpc.RouterServicer):
    """`skillmesh.v1.Router`."""

    def __init__(
        self,
        router: routers.LoRARouter,
        embedder: embedding.Embedding,
        embedder_id: str,
        detector: dissonance.Detector,
        bus: dissonance.EventBus,
        cards: subscriber.CardSubscriber,
        admitted: callers.Callers,
        observe: Callable[[decisions.Decision], None] = lambda _: None,
    ) -> None:
        """Takes the parts that do the work, and who is told of every decision for a question."""
        self._admitted = admitted
        self._observe = observe
        self._router = router
        self._embedder = embedder
        self._embedder_id = embedder_id
        self._detector = detector
        self._bus = bus
        self._cards = cards

    async def Route(
        self, request: router_pb2.RouteRequest, context: Any
    ) -> router_pb2.RouteResponse:
        """Ranks the cards; the event leaves when the answer has left."""
        threshold = request.threshold if request.HasField("threshold") else None
        asker = self._asker(context)
        tenants = asker.tenants
        is_theirs = tenants is None or request.tenant in tenants
        tenant = request.tenant if is_theirs else asker.tenant
        if request.HasField("tenants"):
            named = frozenset(request.tenants.names)
            tenants = named if tenants is None else tenants & named
        hidden = self._hidden_from(tenants)
        decision = await self._router.select(request.query, request.top_k or 1, threshold, hidden)
        self._observe(decision)
        event = None
        if not request.no_learning:
            domain = self._domain(decision)
            traceparent = tracing.traceparent()
            event = self._detector.detect(decision, domain, tenant, traceparent)
        if event is not None:
            context.add_done_callback(_emit_later(self._bus, event, request.reports_answer))
        return router_pb2.RouteResponse(
            candidates=[
                router_pb2.RouteCandidate(
                    card=found.card,
                    probability=found.probability,
                    similarity=found.similarity,
                    nearest_example=found.nearest_example,
                    reading=found.reading,
                )
                for found in decision.candidates
            ],
            none_probability=decision.none_probability,
            confidence=decision.confidence,
            dissonance=decision.dissonance,
            event_id=event.event_id if event is not None else "",
            threshold=decision.threshold,
        )

    async def ExplainRoute(
        self, request: router_pb2.ExplainRouteRequest, context: Any
    ) -> router_pb2.RouteExplanation:
        """Takes a decision apart."""
        threshold = request.threshold if request.HasField("threshold") else None
        found = await self._router.explain(
            request.query,
            request.top_k or 1,
            threshold,
            self._hidden_from(self._asker(context).tenants),
        )
        return _explanation_message(found)

    async def TryCard(
        self, request: router_pb2.TryCardRequest, context: Any
    ) -> router_pb2.TryCardResponse:
        """Rehearses with a card that is not published yet."""
        _check_texts(request.questions, "questions")
        if not manifests.is_digest(request.digest):
            raise errors.InvalidInputError("digest is not a SHA-256 in lower-case hex")
        manifest = manifests.parse(request.manifest_json)
        if manifest.route:
            raise errors.InvalidInputError(
                f"card {manifest.name} has the route {manifest.route}: no question is ever sent "
                "to it, so that there is nothing to rehearse"
            )
        if not self._cards.listed:
            raise errors.UnavailableError(
                "the router has not read the card store since it started, so that it can't tell "
                "what a card would take from others; ask again"
            )
        found = await self._router.rehearse(
            profile.from_manifest(manifest.name, request.digest, manifest),
            request.questions,
            request.threshold if request.HasField("threshold") else None,
        )
        return router_pb2.TryCardResponse(
            questions=map(_tried, found.questions), others=map(_tried, found.others)
        )

    async def ReportAnswer(
        self, request: router_pb2.ReportAnswerRequest, context: Any
    ) -> router_pb2.ReportAnswerResponse:
        """Adds to an event what the answer to its question tells."""
        told = request.signals
        for name in ("mean_logprob", "mean_entropy", "semantic_entropy"):
            if not math.isfinite(getattr(told, name)):
                raise errors.InvalidInputError(f"signals: {name} is not finite")
        self._bus.report(request.event_id, signal_messages.told(request))
        return router_pb2.ReportAnswerResponse()

    async def Embed(
        self, request: router_pb2.EmbedRequest, context: Any
    ) -> router_pb2.EmbedResponse:
        """Embeds texts, behind the questions of users."""
        _check_texts(request.texts, "texts")
        vectors_N_D = await self._embedder.embed(request.texts)
        return router_pb2.EmbedResponse(
            dimension=vectors_N_D.shape[1],
            vectors=np.ascontiguousarray(vectors_N_D, dtype="<f4").tobytes(),
            embedder_id=self._embedder_id,
        )

    async def GetRouterStatus(
        self, request: router_pb2.GetRouterStatusRequest, context: Any
    ) -> router_pb2.RouterStatus:
        """Tells what is routable, how well calibrated, and what became of the events."""
        error = self._router.calibration_error
        # Before the cards: what they are is told of no revision that they may not reflect yet.
        revision = self._cards.revision
        hidden = self._cards.hidden_from(self._asker(context).tenants)
        cards = await asyncio.to_thread(self._router.first_cards, MOST_CARDS_TOLD, hidden)
        return router_pb2.RouterStatus(
            cards=cards,
            card_count=len(self._router),
            revision=revision,
            embedder_id=self._embedder_id,
            events_emitted=self._bus.emitted,
            events_delivered=self._bus.delivered,
            events_dropped=self._bus.dropped,
            events_waiting=self._bus.waiting,
            calibration_error=None if math.isnan(error) else error,
            calibration_rows=self._router.calibration_rows,
            calibration_bins=[
                router_pb2.CalibrationBin(
                    probability=one.probability, share=one.share, mass=one.mass
                )
                for one in self._router.calibration_bins
            ],
            threshold=self._router.threshold,
        )

    def _asker(self, context: Any) -> callers.Caller:
        return access.caller_of(self._admitted, context.invocation_metadata())

    def _hidden_from(self, tenants: callers.Tenants) -> profile.Hidden:
        return lambda: self._cards.hidden_from(tenants)

    def _domain(self, decision: decisions.Decision) -> str:
        near = [found.card for found in decision.candidates if found.similarity >= _NEAR]
        return self._cards.domain(near[0]) if near else ""


def dissonance_message(event: spool.Dissonance) -> factory_pb2.CognitiveDissonance:
    """The protobuf of an event."""
    return factory_pb2.CognitiveDissonance(
        event_id=event.event_id,
        query=event.query,
        confidence=event.confidence,
        detected_at_ms=event.detected_at_ms,
        domain=event.domain,
        tenant=event.tenant,
        signals=signal_messages.message(event.signals),
        traceparent=event.traceparent,
    )


def _tried(tried: rehearsal.Tried) -> router_pb2.TriedQuestion:
    return router_pb2.TriedQuestion(
        question=tried.question,
        card=tried.card,
        confidence=tried.confidence,
        card_without=tried.card_without,
        similarity=tried.similarity,
        reading=tried.reading,
    )


def _explanation_message(found: explanation.Explanation) -> router_pb2.RouteExplanation:
    message = router_pb2.RouteExplanation(reason=found.reason.name)
    _fill(message, found, leave_out=("reason",))
    return message


def _fill(message: Any, found: Any, leave_out: tuple[str, ...] = ()) -> None:
    """Fills a message whose fields are named and nested as a dataclass's; None stays unset."""
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if field.name in leave_out or value is None:
            continue
        if not isinstance(value, tuple):
            setattr(message, field.name, value)
            continue
        target = getattr(message, field.name)
        for one in value:
            if dataclasses.is_dataclass(one):
                _fill(target.add(), one)
            else:
                target.append(one)


def _emit_later(
    bus: dissonance.EventBus, event: spool.Dissonance, awaits_answer: bool
) -> Callable[[Any], None]:
    return lambda _context: bus.emit(event, awaits_answer)


def _check_texts(texts: Sequence[str], field: str) -> None:
    if len(texts) > MOST_TEXTS:
        raise errors.InvalidInputError(
            f"{field} has {len(texts):,} entries, at most {MOST_TEXTS:,} fit one call; send several"
        )
    for place, text in enumerate(texts):
        if len(text) > LONGEST_TEXT_CHARACTERS:
            raise errors.InvalidInputError(
                f"{field}[{place}] has {len(text):,} characters, at most "
                f"{LONGEST_TEXT_CHARACTERS:,} are embedded; cut it into parts"
            )
