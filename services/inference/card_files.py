"""Brings cards from the store into a folder of this node, once for each digest.

Knows nothing about the model. Its calls block: use a thread.
"""

from __future__ import annotations

import pathlib

import structlog

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import client as flight

_log = structlog.get_logger(__name__)


class CardFiles:
    """Cards on disk, named by their digests."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, which is made when it is needed."""
        self._folder = folder

    def card(self, digest: str, flight_address: str) -> cards.LoRACard:
        """The card of a digest: from the folder, or fetched where it is missing or damaged.

        Args:
            digest: SHA-256 in lower-case hex.
            flight_address: `host:port` of the store's data plane.

        Raises:
            errors.InvalidInputError: the digest or the card is malformed.
            errors.SkillmeshError: the store can't be reached or does not have it.
        """
        if not manifests.is_digest(digest):
            raise errors.InvalidInputError(f"{digest!r} is not a SHA-256 in lower-case hex")
        path = self._folder / f"{digest}{formats.SUFFIX}"
        try:
            return formats.LoRAFormat.load(path, digest)
        except errors.NotFoundError:
            pass
        except errors.IntegrityError as error:
            _log.warning("cached card is damaged; fetching it again", reason=str(error))
        client = flight.LoRAFlightClient(flight_address)
        try:
            client.fetch_skill(digest, path)
        finally:
            client.close()
        return formats.LoRAFormat.load(path, digest)
