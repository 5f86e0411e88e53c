"""Skill cards and their store."""

from __future__ import annotations

import dataclasses

from shared.cards import manifest as manifests


@dataclasses.dataclass(frozen=True)
class Card:
    """One card in the store."""

    name: str
    digest: str
    version: str
    domain: str
    description: str
    size_bytes: int
    created_at_ms: int
    """Unix time."""
    aliases: tuple[str, ...]
    state: str = "ACTIVE"
    """ACTIVE, DELETED or REVOKED."""
    base_fingerprint: str = ""
    origin: str = ""
    """Id of the store where it was committed first."""
    is_remote: bool = False
    """Known from a peer's catalogue; its bytes come when somebody needs them."""

    @property
    def reference(self) -> str:
        """`name@digest`."""
        return f"{self.name}@{self.digest}"


@dataclasses.dataclass(frozen=True)
class CardRecord:
    """All that the store has of a card but its bytes."""

    card: Card
    manifest: manifests.Manifest
    signature_json: str
    """DSSE envelope; empty where it is not signed."""


@dataclasses.dataclass(frozen=True)
class Move:
    """Where an alias pointed from then on."""

    revision: int
    digest: str
    moved_at_ms: int
    """Unix time."""


@dataclasses.dataclass(frozen=True)
class Residency:
    """What a node said that it holds."""

    node_id: str
    address: str
    """`host:port` where it answers; empty where it does not say."""
    base_fingerprint: str
    revision: int
    """The last that it has applied."""
    digests: tuple[str, ...]
    """Of the cards that requests may choose."""
    reported_at_ms: int
    """Unix time."""


@dataclasses.dataclass(frozen=True)
class Store:
    """The card store."""

    revision: int
    cards: int
    size_bytes: int
    store_id: str = ""
    flight_address: str = ""
    """`host:port` of the data plane."""
