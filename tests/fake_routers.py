"""Routers with the fake embedder, and cards for them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from services.router import practice, profile, router, stock, words
from tests import fake_router_peers

EMBEDDER = fake_router_peers.HashingEmbedder()


@functools.cache
def ground() -> practice.Practice:
    """A practised ground, made once: fitting on it takes a moment."""
    return asyncio.run(practice.prepare(_embed, EMBEDDER.vocabulary()))


def lora_router(
    practised: practice.Practice,
    exact_cards: int = stock.EXACT_CARDS,
    embed: practice.Embed | None = None,
    embed_query: router.EmbedQuery | None = None,
) -> router.LoRARouter:
    """A router without cards."""
    return router.LoRARouter(
        embed_query or question_vector,
        embed or _embed,
        words.Words(EMBEDDER.vocabulary()),
        practised,
        threshold=0.4,
        exact_cards=exact_cards,
    )


def card_about(name: str, thing: str, version: str = "1") -> profile.Card:
    """A card with example questions about one thing."""
    digest = fake_router_peers.digest_of(f"{name} {thing} {version}")
    return profile.Card(name, digest, "testing", "", fake_router_peers.about(thing))


def names(asked: router.LoRARouter, virtual: bool = False) -> set[str]:
    """Names of the cards that are not virtual, or of those that are."""
    found = {name: asked.stock.find(name) for name in asked.stock.names()}
    return {name for name, one in found.items() if one and one.virtual is virtual}


async def _embed(texts: Sequence[str]) -> profile.Vectors:
    return EMBEDDER.embed(texts)


async def question_vector(text: str) -> profile.Vectors:
    found: profile.Vectors = EMBEDDER.embed([text])[0]
    return found
