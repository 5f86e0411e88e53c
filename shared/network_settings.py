"""Settings of how stores, nodes and peers find one another and what stores exchange."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from shared import sections


class Discovery(sections.Section):
    """How nodes find the card store."""

    zeroconf: bool = True
    """Announce and browse `_skillmesh._tcp.local.`."""
    interfaces: Literal["all"] | tuple[str, ...] = ("127.0.0.1",)
    """Where to announce and browse: `all`, or addresses of interfaces."""
    stores: tuple[sections.Address, ...] = ()
    """Control addresses of stores, for networks without multicast; asked first."""
    list_every_s: sections.Positive = 60.0
    """How often router and nodes list the store's cards anew, whatever they were told since."""


class Mirror(sections.Section):
    """Which cards of its peers a store takes over. Patterns are those of a shell: `*`, `?`."""

    domains: tuple[str, ...] = ("*",)
    """Patterns of the cards' domains."""
    signers: tuple[str, ...] = ()
    """Ids of the keys whose cards are taken; empty: of every key that this store trusts."""
    base_models: tuple[str, ...] = ("*",)
    """Patterns of the base model's id or fingerprint."""
    fetch: Literal["at_once", "on_use"] = "at_once"
    """Whether a card's bytes come with its record, or when a node first asks for them."""


class Federation(sections.Section):
    """How this cluster's store exchanges cards with those of others."""

    enabled: bool = False
    """Whether it does."""
    mesh: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = "open"
    """Stores of the same mesh find one another by zeroconf (`discovery` says where)."""
    peers: tuple[sections.Address, ...] = ()
    """Control addresses of stores to follow besides, for networks without multicast."""
    mirror: Mirror = Mirror()
    """What is taken over."""
    bandwidth_mib_s: float = pydantic.Field(default=0.0, ge=0)
    """The rate at which bytes are fetched from peers, all together; 0: as fast as it goes."""
