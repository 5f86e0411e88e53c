"""Skill cards and their store."""

from __future__ import annotations

import dataclasses


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

    @property
    def reference(self) -> str:
        """`name@digest`."""
        return f"{self.name}@{self.digest}"


@dataclasses.dataclass(frozen=True)
class Store:
    """The card store."""

    revision: int
    cards: int
    size_bytes: int
