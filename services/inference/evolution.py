"""Attaches an engine to a running skillmesh, from any Python process.

Cards come as the store publishes them; questions go through the router, which leaves an event
where no card fits, from which the factory makes a new one. Without it an engine serves what it is
given by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Protocol

from services.inference import answering, card_files, routing, subscriber
from shared import discovery
from shared import settings as config
from shared.cards import signature
from shared.pb import router_pb2_grpc
from shared.rpc import client, watch


class Engine(answering.Engine, subscriber.Engine, Protocol):
    """What answers and takes in cards; `ArrowEngine` is one."""


@dataclasses.dataclass(frozen=True)
class Evolution:
    """What an attached engine has more."""

    answers: answering.Answering
    """Answers questions with the card that the router chooses."""
    cards: subscriber.CardSubscriber
    """Keeps the engine's cards as the store has them."""


@contextlib.asynccontextmanager
async def attached(
    engine: Engine,
    settings: config.Settings,
    find_stores: watch.Find | None = None,
    silence_s: float = watch.SILENCE_S,
) -> AsyncIterator[Evolution]:
    """An engine that gets the cards of a skillmesh and asks its router; the cards stay in it.

    A router or store that is away is joined when it comes.

    Args:
        engine: answers and takes in cards.
        settings: the router's address, how to find card stores, the folder for cards.
        find_stores: looks for card stores; by default discovery.
        silence_s: how long the store may be silent before the line counts as dead.
    """
    follower = watch.StoreFollower(
        find_stores or (lambda: discovery.find_stores(settings)), silence_s
    )
    files = card_files.CardFiles(settings.state_path("inference", "cards"))
    trust = signature.Trust.configured(settings)
    cards = subscriber.CardSubscriber(engine, follower, files, trust.verify)
    async with client.channel(settings.router.address) as channel:
        answers = answering.Answering(
            engine,
            routing.RouterClient(router_pb2_grpc.RouterStub(channel)).route,
            settings.inference.query_rewriting.get(settings.model.base),
        )
        cards.start()
        try:
            yield Evolution(answers, cards)
        finally:
            await cards.stop()
