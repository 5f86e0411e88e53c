"""Vectors that a card brings are another embedder's, as far as the router knows."""

from __future__ import annotations

import pytest

from services.router import profile
from shared.cards import manifest as manifests
from tests import fake_router_peers

THINGS = {"skarn": "the Skarnholm lighthouse", "tarn": "the Tarnvik viaduct"}
ASKED = ("How tall is the Skarnholm lighthouse?", "Who built the Tarnvik viaduct?", "Who is Ada?")


def _card(name: str, **vectors) -> profile.Card:
    record = fake_router_peers.card_record(name, THINGS[name])
    manifest = manifests.parse(record.manifest_json)
    routing = manifests.RoutingProfile(examples=manifest.routing.examples, **vectors)
    return profile.from_manifest(
        record.name, record.digest, manifest.model_copy(update={"routing": routing})
    )


async def _decisions(router, cards):
    await router.register_cards(cards)
    await router.settled()
    return [await router.select(question, top_k=2) for question in ASKED]


@pytest.fixture
async def expected(lora_router):
    found = await _decisions(lora_router, [_card(name) for name in THINGS])
    for name in THINGS:
        await lora_router.unregister_card(name)
    await lora_router.settled()
    return found


@pytest.mark.parametrize("embedder", ["another", "hashing", "all-MiniLM-L6-v2"])
async def test_cards_are_found_by_their_questions_when_they_bring_vectors(
    lora_router, expected, embedder
):
    # Each card claims to lie where the other does.
    dimension = 384 if embedder == "all-MiniLM-L6-v2" else fake_router_peers.DIMENSION
    made = fake_router_peers.HashingEmbedder().embed(tuple(THINGS.values()))
    claims = [[*vector, *[0.0] * (dimension - len(vector))] for vector in made.tolist()]
    cards = [
        _card(name, embedder_id=embedder, centroid=claim, spread=2.0)
        for name, claim in zip(THINGS, reversed(claims), strict=True)
    ]
    assert await _decisions(lora_router, cards) == expected
