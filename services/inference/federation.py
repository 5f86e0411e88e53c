"""Keeps an engine's cards as the store has them, from any Python process: no router, no factory.

    engine = ArrowEngine(base, settings.inference)
    engine.start()
    await engine.start_federation(settings)
    came = await engine.sync_remote_skills()

`evolution` adds the router to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import uuid
from collections.abc import AsyncIterator

from services.inference import card_files, reporting, store_client, subscriber
from shared import discovery
from shared import settings as config
from shared.cards import signature
from shared.rpc import watch
from shared.security import protection as protections


@dataclasses.dataclass(frozen=True)
class Federation:
    """What an engine that follows a store has more."""

    node_id: str
    """Names it in the store's books."""
    cards: subscriber.CardSubscriber
    """Keeps the engine's cards as the store has them."""
    find: watch.Find
    """Looks for stores."""
    stores: store_client.StoreClient
    """Calls them."""
    reporter: reporting.ResidencyReporter
    """Tells them of this node."""

    async def sync(self) -> list[str]:
        """Lists the store's cards now and tries to have each of them served.

        Returns:
            `name@digest` of what is served since and was not before.

        Raises:
            errors.UnavailableError: no store answers.
        """
        while True:
            listing = await self.stores.listing(self.find)
            # The follower may have heard of more while the pages came.
            if listing.revision >= self.cards.revision:
                return await self.cards.apply(listing)


@contextlib.asynccontextmanager
async def joined(
    engine: subscriber.Engine,
    settings: config.Settings,
    find_stores: watch.Find | None = None,
    silence_s: float = watch.SILENCE_S,
) -> AsyncIterator[Federation]:
    """An engine that gets the cards of a store; they stay in it afterwards.

    A store that is away is joined when it comes.

    Args:
        engine: takes in cards.
        settings: how to find card stores, the folder for cards.
        find_stores: looks for card stores; by default discovery.
        silence_s: how long the store may be silent before the line counts as dead.
    """

    async def discovered() -> list[discovery.StoreAddress]:
        return await discovery.find_stores(settings)

    find = find_stores or discovered
    protection = protections.Protection.configured(settings)
    stores = store_client.StoreClient(protection)
    follower = watch.StoreFollower(find, silence_s, settings.discovery.list_every_s, protection)
    files = card_files.CardFiles(settings.state_path("inference", "cards"), protection=protection)
    trust = signature.Trust.configured(settings)
    cards = subscriber.CardSubscriber(engine, follower, files, trust, stores.bring)
    node_id = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    reporter = reporting.ResidencyReporter(node_id, engine, cards, stores.report)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cards.stop)
        cards.start()
        stack.push_async_callback(reporter.stop)
        reporter.start()
        yield Federation(node_id, cards, find, stores, reporter)
