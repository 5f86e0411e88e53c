"""Which node a request goes to: by where the card is, then by load.

Of those that are equally near two are drawn, and the less busy one is taken (Mitzenmacher, The
Power of Two Choices in Randomized Load Balancing, 2001; the default of Envoy's `least_request`).
Always to take the least busy of all would be better with fresh figures alone: until the next look
every gateway would send everything to the same node (Mitzenmacher, How Useful Is Old Information?,
2000).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from services.gateway import domain
from services.gateway.nodes import member as members
from shared.cards import manifest as manifests

_OF_NO_CARD = frozenset({"", "auto", "base", manifests.SPECIALIST_LOCAL})
Rank = tuple[bool, int]
"""Whether another node has the agent's memory; how near the card is. The smallest goes first."""


def names_card(model: str) -> bool:
    """Whether a request names a card, and no other will do."""
    return model not in _OF_NO_CARD


def fitting(
    fleet: Sequence[members.Member], asked: domain.Asked, home: str
) -> dict[members.Member, Rank]:
    """The nodes that can answer, each with its rank.

    Args:
        fleet: all nodes.
        asked: what.
        home: address of the node whose agents have memories.

    Raises:
        errors.InvalidInputError: the model's name is malformed.
    """
    agent = isinstance(asked, domain.Conversation) and bool(asked.agent)
    found = {}
    for member in fleet:
        near = member.rank(asked.model) if names_card(asked.model) else 0
        if near is not None:
            found[member] = (agent and member.address != home, near)
    return found


def pick(
    ranks: Mapping[members.Member, Rank],
    tried: Collection[members.Member],
    chance: random.Random,
) -> members.Member | None:
    """The node to ask next; one that is left alone or gone only where no other is left."""
    left = [member for member in ranks if member not in tried]
    usable = [member for member in left if member.is_usable]
    if usable:
        best = min(ranks[member] for member in usable)
        nearest = [member for member in usable if ranks[member] == best]
        drawn = nearest if len(nearest) <= 1 else chance.sample(nearest, 2)
        return min(drawn, key=lambda member: member.load)
    # All may be thought gone by mistake, and then answer (Envoy's "panic"): better than to refuse.
    return min(left, key=_forlorn, default=None)


def _forlorn(member: members.Member) -> tuple[bool, float, float]:
    return not member.is_reached, member.breaker.circuit().open_for_s, member.load
