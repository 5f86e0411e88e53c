"""The way to the card store's control plane: what a node asks of it and tells it.

Translates to protobuf, and nothing else. A channel a call: stores come and go, and calls are rare.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared import errors
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client, watch
from shared.security import protection as protections

BRING_DEADLINE_S = 120.0
"""A card of some hundred megabytes from a peer far away."""


class StoreClient:
    """Calls stores, each with what this process has to show."""

    def __init__(self, protection: protections.Protection = protections.OPEN) -> None:
        """Takes what is shown to stores and asked of them."""
        self._protection = protection

    async def bring(self, control: str, digest: str) -> None:
        """Returns once the bytes of a card are in the store, fetched from one of its peers.

        Args:
            control: `host:port` of the store's control plane; empty while none was found.
            digest: of the card.

        Raises:
            errors.SkillmeshError: the store or its peers can't be reached, or none has the card.
        """
        if not control:
            raise errors.UnavailableError("no card store was found yet; try again")
        async with client.channel(control, protection=self._protection) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            await client.call(
                stub.BringCard, cards_pb2.BringCardRequest(digest=digest), BRING_DEADLINE_S
            )

    async def report(
        self,
        control: str,
        node_id: str,
        base_fingerprint: str,
        revision: int,
        digests: Sequence[str],
        address: str,
    ) -> None:
        """Tells the store which cards requests may choose on this node, and where it answers.

        Raises:
            errors.SkillmeshError: the store can't be reached, or does not take it.
        """
        request = cards_pb2.ReportResidencyRequest(
            node_id=node_id,
            base_fingerprint=base_fingerprint,
            revision=revision,
            digests=digests,
            address=address,
        )
        async with client.channel(control, protection=self._protection) as channel:
            await client.call(cards_pb2_grpc.CardStoreStub(channel).ReportResidency, request)

    async def listing(self, find: watch.Find) -> watch.Listing:
        """What the first store that answers has now.

        Raises:
            errors.UnavailableError: none answers.
        """
        reason = "none was found"
        for address in await find():
            try:
                async with client.channel(address.control, protection=self._protection) as channel:
                    stub = cards_pb2_grpc.CardStoreStub(channel)
                    return await watch.listing(stub, address.control)
            except errors.SkillmeshError as error:
                reason = str(error)
        raise errors.UnavailableError(f"no card store can be listed: {reason}; is one running?")
