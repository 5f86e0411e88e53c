"""Brings cards from the store into a folder of this node, once for each digest.

Knows nothing about the model. Its calls block: use a thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable

import structlog

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import client as flight
from shared.security import protection as protections

MOST_BYTES = 8 * 1024**3
"""Bytes of cards that a node keeps on disk where it is not told otherwise."""
_log = structlog.get_logger(__name__)


def source(path: pathlib.Path, key: str) -> Callable[[], cards.LoRACard]:
    """Gets a card from a file, which must have the digest that its key names, if it names one."""
    digest = key.partition("@")[2]
    expected = digest if manifests.is_digest(digest) else None
    return functools.partial(formats.LoRAFormat.load, path, expected)


class CardFiles:
    """Cards on disk, named by their digests."""

    def __init__(
        self,
        folder: pathlib.Path,
        most_bytes: int = MOST_BYTES,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Takes the folder, which is made when it is needed, and what it may hold.

        Args:
            folder: where the cards lie, and nothing else.
            most_bytes: beyond this, those that were not used for longest are removed.
            protection: what is shown to stores and asked of them.
        """
        self._protection = protection
        self._folder = folder
        self._most_bytes = most_bytes
        self._arriving: set[pathlib.Path] = set()

    def card(self, digest: str, flight_address: str) -> cards.LoRACard:
        """The card of a digest: from the folder, or fetched where it is missing or damaged.

        Args:
            digest: SHA-256 in lower-case hex.
            flight_address: `host:port` of the store's data plane.

        Raises:
            errors.InvalidInputError: the digest is malformed, or the card that the store sent.
            errors.SkillmeshError: the store can't be reached or does not have it.
        """
        if not manifests.is_digest(digest):
            raise errors.InvalidInputError(f"{digest!r} is not a SHA-256 in lower-case hex")
        path = self._folder / f"{digest}{formats.SUFFIX}"
        try:
            card = formats.LoRAFormat.load(path, digest)
        except (errors.NotFoundError, FileNotFoundError):  # The latter if removed meanwhile.
            return self._fetched(digest, path, flight_address)
        except (errors.IntegrityError, errors.CardFormatError) as error:
            _log.warning("cached card is damaged; fetching it again", reason=str(error))
            return self._fetched(digest, path, flight_address)
        with contextlib.suppress(FileNotFoundError):  # Removed meanwhile: the mapping stays.
            os.utime(path)
        return card

    def _fetched(self, digest: str, path: pathlib.Path, flight_address: str) -> cards.LoRACard:
        self._arriving.add(path)
        client = flight.LoRAFlightClient(flight_address, self._protection)
        try:
            client.fetch_skill(digest, path)
            self._remove_oldest()
            return formats.LoRAFormat.load(path, digest)
        finally:
            client.close()
            self._arriving.discard(path)

    def _remove_oldest(self) -> None:
        """Keeps to `most_bytes`, but for what other threads are fetching just now."""
        found = []
        for path in self._folder.glob(f"*{formats.SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # Another thread was here first.
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        surplus = sum(size_bytes for _, size_bytes, _ in found) - self._most_bytes
        for _, size_bytes, path in sorted(found):
            if surplus <= 0:
                break
            if path not in self._arriving:
                path.unlink(missing_ok=True)
                surplus -= size_bytes
                _log.info("cached card removed: not used for longest", file=path.name)
