"""Attaches an engine to a running skillmesh, from any Python process.

Cards come as the store publishes them; questions go through the router, which leaves an event
where no card fits, from which the factory makes a new one. Without it an engine serves what it is
given by hand.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from services.inference import answering, card_files, routing, subscriber
from shared import discovery
from shared import settings as config
from shared.pb import router_pb2_grpc
from shared.rpc import client, watch


class Engine(answering.Engine, subscriber.Engine, Protocol):
    """What answers and takes in cards; `ArrowEngine` is one."""


class Evolution:
    """An engine that gets the cards of a skillmesh and asks its router."""

    def __init__(
        self,
        engine: Engine,
        settings: config.Settings,
        find_stores: watch.Find | None = None,
        silence_s: float = watch.SILENCE_S,
    ) -> None:
        """Prepares; `start` connects.

        Args:
            engine: answers and takes in cards.
            settings: the router's address, how to find card stores, the folder for cards.
            find_stores: looks for card stores; by default discovery.
            silence_s: how long the store may be silent before the line counts as dead.
        """
        self._engine, self._settings = engine, settings
        self._open = contextlib.AsyncExitStack()
        self.cards = subscriber.CardSubscriber(
            engine,
            watch.StoreFollower(
                find_stores or (lambda: discovery.find_stores(settings)), silence_s
            ),
            card_files.CardFiles(settings.state_path("inference", "cards")),
        )
        """Keeps the engine's cards as the store has them."""
        self.answers: answering.Answering
        """Answers questions; there after `start`."""

    async def start(self) -> None:
        """Connects; a router or store that is away is joined when it comes."""
        channel = await self._open.enter_async_context(
            client.channel(self._settings.router.address)
        )
        self.answers = answering.Answering(
            self._engine,
            routing.RouterClient(router_pb2_grpc.RouterStub(channel)).route,
            self._settings.inference.query_rewriting.get(self._settings.model.base),
        )
        self.cards.start()
        self._open.push_async_callback(self.cards.stop)

    async def stop(self) -> None:
        """Disconnects; the cards stay in the engine."""
        await self._open.aclose()
