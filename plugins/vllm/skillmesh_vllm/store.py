"""The card store, over Arrow Flight alone: which card a reference means now, and its bytes.

Calls block: use a thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight

from skillmesh_vllm import errors, settings

LARGEST_CARD_BYTES = 256 * 1024 * 1024
_NAME = "[a-z0-9][a-z0-9-]{0,62}"
_DIGEST = "[0-9a-f]{64}"
# What follows `#` is no part of the card's name: vLLM lists adapters by the names that the resolver
# gave them, and those may be asked for too.
_REFERENCE = re.compile(rf"({_NAME})(?:@({_DIGEST})(?:#[0-9]+)?|@{_NAME})?")
_FIND_S, _FETCH_S = 10.0, 120.0


@dataclasses.dataclass(frozen=True)
class Card:
    """One version of a card, as the store lists it."""

    name: str
    digest: str
    """SHA-256 of the card's file in lower-case hex."""
    size_bytes: int
    base_fingerprint: str = ""
    """Empty where the store does not say; the card itself always does."""

    @property
    def identity(self) -> str:
        """`name@digest`."""
        return f"{self.name}@{self.digest}"


def is_reference(text: str) -> bool:
    """Whether a text has the form `name`, `name@alias`, `name@digest` or `name@digest#number`."""
    return _REFERENCE.fullmatch(text) is not None


class CardStore:
    """One store's data plane; connects on first use."""

    def __init__(self, where: settings.Store) -> None:
        """Takes the address and what is shown there."""
        self._where = where
        self._opening = threading.Lock()
        self._opened: pyarrow.flight.FlightClient | None = None

    def find(self, reference: str) -> Card:
        """The card that a reference means now.

        Raises:
            errors.NotFoundError: none.
            errors.UnavailableError: the store can't be asked.
            errors.DamagedError: its answer is not about what was asked.
        """
        asked = _REFERENCE.fullmatch(reference)
        if asked is None:
            raise errors.NotFoundError(f"{reference!r} is not name, name@alias or name@digest")
        descriptor = pyarrow.flight.FlightDescriptor.for_path(reference.partition("#")[0])
        with self._typed(reference):
            info = self._client().get_flight_info(descriptor, self._options(_FIND_S))
        card = _listed(info.descriptor.command)
        # The digest becomes a folder's name and the name a part of what vLLM shows: neither is
        # believed, however much the store is.
        if card is None or card.name != asked[1] or asked[2] not in (None, card.digest):
            raise errors.DamagedError(
                f"{self._where.location}: asked for {reference!r}, it answered "
                f"{info.descriptor.command!r:.200}"
            )
        return card

    def fetch(self, card: Card) -> pa.Buffer:
        """A card's file.

        Raises:
            errors.CardError: it can't be had, or has another size or digest.
        """
        ticket = pyarrow.flight.Ticket(json.dumps({"digest": card.digest, "raw": True}))
        hasher, pieces, received = hashlib.sha256(), [], 0
        with self._typed(card.identity):
            for chunk in self._client().do_get(ticket, self._options(_FETCH_S)):
                for value in chunk.data.column(0):
                    piece = value.as_buffer()
                    received += piece.size
                    if received > card.size_bytes:
                        raise errors.DamagedError(
                            f"{card.identity}: more than the {card.size_bytes} bytes listed"
                        )
                    hasher.update(piece)
                    pieces.append(memoryview(piece))
        if hasher.hexdigest() != card.digest:
            raise errors.DamagedError(
                f"{card.identity}: what {self._where.location} sent has SHA-256 "
                f"{hasher.hexdigest()}"
            )
        return pa.py_buffer(b"".join(pieces))

    def _client(self) -> pyarrow.flight.FlightClient:
        with self._opening:
            if self._opened is None:
                where = self._where
                tls = {
                    "tls_root_certs": where.authority,
                    "cert_chain": where.certificate,
                    "private_key": where.key,
                }
                shown = {key: value for key, value in tls.items() if value is not None}
                self._opened = pyarrow.flight.FlightClient(where.location, **shown)
            return self._opened

    def _options(self, timeout_s: float) -> pyarrow.flight.FlightCallOptions:
        token = self._where.token
        headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
        return pyarrow.flight.FlightCallOptions(timeout=timeout_s, headers=headers)

    @contextlib.contextmanager
    def _typed(self, what: str) -> Iterator[None]:
        try:
            yield
        except pa.ArrowKeyError as error:
            raise errors.NotFoundError(f"{self._where.location} knows no card {what}") from error
        except (pa.ArrowException, OSError) as error:
            text = str(error).split(". Detail:")[0].split(" gRPC client debug")[0]
            raise errors.UnavailableError(f"{self._where.location}: {what}: {text}") from error


def _listed(command: bytes | None) -> Card | None:
    try:
        found = json.loads(command or b"")
        card = Card(
            str(found["name"]),
            str(found["digest"]),
            int(found["size_bytes"]),
            str(found.get("base_fingerprint", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_sound = re.fullmatch(_DIGEST, card.digest) and 0 < card.size_bytes <= LARGEST_CARD_BYTES
    return card if is_sound else None
