"""One connection of the operator's command line to a running store."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc
import typer

from shared import discovery, errors
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc, maintenance_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections

Address = Annotated[str, typer.Option("--store", help="host:port; by default it is looked for.")]
_DEADLINE_S = 60.0
_PAGE_CARDS = 500
_SHORT_DIGEST = "[0-9a-f]{6,63}"


class Calls:
    """What the commands ask of one store."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes the way to the store."""
        self._store = cards_pb2_grpc.CardStoreStub(channel)
        self.upkeep = maintenance_pb2_grpc.StoreMaintenanceStub(channel)
        """Its maintenance service."""

    async def store(self, method: str, request: Any) -> Any:
        """One call of the CardStore service.

        Raises:
            errors.SkillmeshError: what the store answered.
        """
        return await client.call(getattr(self._store, method), request, _DEADLINE_S)

    async def card(self, reference: str) -> cards_pb2.CardRecord:
        """One card, in any state, also by the beginning of its digest.

        Raises:
            errors.InvalidInputError: several digests begin so.
            errors.SkillmeshError: what the store answered.
        """
        name, _, start = reference.rpartition("@")
        if re.fullmatch(_SHORT_DIGEST, start):
            reference = await self._whole(name, start) or reference
        request = cards_pb2.GetCardRequest(reference=reference)
        card: cards_pb2.CardRecord = await self.store("GetCard", request)
        return card

    async def _whole(self, name: str, start: str) -> str:
        """The digest that begins so, of an active card; empty where there is none."""
        request = cards_pb2.ListCardsRequest(all_versions=True, name=name)
        found = [card.digest for card in await self.cards(request)]
        found = [digest for digest in found if digest.startswith(start)]
        if len(found) > 1:
            raise errors.InvalidInputError(f"{len(found)} digests begin with {start}; give more")
        return "".join(found)

    async def cards(self, request: cards_pb2.ListCardsRequest) -> list[cards_pb2.CardRecord]:
        """All pages of a listing.

        Raises:
            errors.SkillmeshError: what the store answered.
        """
        request.page_size = _PAGE_CARDS
        found: list[cards_pb2.CardRecord] = []
        while True:
            page = await self.store("ListCards", request)
            found += page.cards
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


@contextlib.asynccontextmanager
async def opened(address: str = "") -> AsyncIterator[Calls]:
    """The store at an address, or the one that the configuration leads to.

    Raises:
        errors.ConfigError: the configuration is wrong.
        errors.UnavailableError: no store answers there.
    """
    settings = config.load()
    if not address:
        address = (await discovery.find_stores(settings))[0].control
    protection = protections.Protection.configured(settings)
    async with client.channel(address, protection=protection) as channel:
        try:
            yield Calls(channel)
        except errors.UnavailableError as error:
            raise errors.UnavailableError(
                f"the card store at {address} does not answer: {error}; start it (make up), or "
                "name another with --store"
            ) from error
