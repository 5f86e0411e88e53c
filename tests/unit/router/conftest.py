"""A practised ground with the fake embedder, made once: fitting on it takes a moment."""

from __future__ import annotations

import asyncio

import pytest

from services.router import practice, profile, router, words
from tests import fake_router_peers

EMBEDDER = fake_router_peers.HashingEmbedder()


async def _embed(texts) -> profile.Vectors:
    return EMBEDDER.embed(texts)


async def _embed_query(text: str) -> profile.Vectors:
    return EMBEDDER.embed([text])[0]


@pytest.fixture(scope="session")
def ground() -> practice.Practice:
    return asyncio.run(practice.prepare(_embed, EMBEDDER.vocabulary()))


@pytest.fixture
def lora_router(ground: practice.Practice) -> router.LoRARouter:
    weigher = words.Words(EMBEDDER.vocabulary())
    return router.LoRARouter(_embed_query, _embed, weigher, ground, threshold=0.4)


@pytest.fixture
def question():
    weigher = words.Words(EMBEDDER.vocabulary())

    def make(text: str) -> profile.Question:
        return profile.Question(text, EMBEDDER.embed([text])[0], weigher.of(text))

    return make


@pytest.fixture
def card_about():
    def make(name: str, thing: str, version: str = "1") -> profile.Card:
        digest = fake_router_peers.digest_of(f"{name} {thing} {version}")
        return profile.Card(name, digest, "testing", "", fake_router_peers.about(thing))

    return make
