"""Attaches an engine to a running skillmesh, from any Python process.

Cards come as the store publishes them (`federation`); questions go through the router, which leaves
an event where no card fits, from which the factory makes a new one. Without it an engine serves
what it is given by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Protocol

from services.inference import (
    answering,
    choosing,
    completing,
    federation,
    memories,
    mixing,
    reporting,
    routing,
    semantic_entropy,
    subscriber,
)
from shared import settings as config
from shared.pb import router_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections

_WAITED_SHARE = 0.8
"""Of the time that the router waits for a report; the rest is its way there."""


class Engine(answering.Engine, subscriber.Engine, semantic_entropy.Engine, Protocol):
    """What answers and takes in cards; `ArrowEngine` is one."""


@dataclasses.dataclass(frozen=True)
class Evolution:
    """What an attached engine has more."""

    node_id: str
    """Names it in the store's books."""
    answers: answering.Answering
    """Answers questions with the card that the router chooses."""
    completions: completing.Completing
    """Completes code with the card of its code base."""
    chosen: choosing.Choosing
    """Finds cards by name, for those who may be answered by them."""
    cards: subscriber.CardSubscriber
    """Keeps the engine's cards as the store has them."""
    semantic: semantic_entropy.SemanticEntropy
    """Asks again what the base model may not know."""
    reporter: reporting.ResidencyReporter
    """Tells stores of this node."""


@contextlib.asynccontextmanager
async def attached(
    engine: Engine,
    settings: config.Settings,
    found: federation.Federation,
    agents: memories.Memories | None = None,
) -> AsyncIterator[Evolution]:
    """An engine that asks a router for the cards that it gets from a store.

    A router that is away is asked again with the next question.

    Args:
        engine: answers.
        settings: the router's address.
        found: where its cards come from.
        agents: have memories; None: there are none.
    """
    protection = protections.Protection.configured(settings)
    async with client.channel(settings.router.address, protection=protection) as channel:
        router = routing.RouterClient(router_pb2_grpc.RouterStub(channel))
        semantic = semantic_entropy.SemanticEntropy(
            engine,
            router.embed,
            router.report,
            settings.inference.semantic_samples,
            _WAITED_SHARE * settings.router.answer_wait_s,
        )
        chosen = choosing.Choosing(engine, found.cards.of_route, found.cards.tenants_of)
        answers = answering.Answering(
            engine,
            router.route,
            settings.inference.query_rewriting.get(settings.model.base),
            semantic.report,
            mixing.Together(settings.inference.max_cards, settings.inference.least_share),
            chosen,
            agents,
        )
        completions = completing.Completing(engine, chosen)
        try:
            yield Evolution(
                found.node_id,
                answers,
                completions,
                chosen,
                found.cards,
                semantic,
                found.reporter,
            )
        finally:
            await semantic.close()
            await router.close()
