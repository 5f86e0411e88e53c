"""What the router's cards are after news of a store."""

from __future__ import annotations

import asyncio

import pytest

from services.router import subscriber
from shared import errors
from shared.cards import keyring as keyrings
from shared.cards import signature
from shared.rpc import watch
from tests import fake_router_peers, fake_routers, fake_store_follower, fakes


def record(name: str, thing: str, remote: bool = False) -> watch.CardRecord:
    sent = fake_router_peers.card_record(name, thing)
    return watch.CardRecord(
        name=name,
        digest=sent.digest,
        version=sent.version,
        domain=sent.domain,
        description=sent.description,
        base_fingerprint=sent.base_fingerprint,
        size_bytes=1,
        created_at_ms=0,
        aliases=("latest",),
        manifest_json=sent.manifest_json,
        signature_json=sent.signature_json,
        remote=remote,
    )


@pytest.fixture
async def follower(tmp_path, ground):
    """News that reach a router whose embedder fails at one text."""

    async def embed(texts):
        if any("Spoilt" in text for text in texts):
            raise errors.InternalError("embedding failed: spoilt text")
        return fake_routers.EMBEDDER.embed(texts)

    told = fake_store_follower.FakeFollower()
    told.router = fake_routers.lora_router(ground, embed=embed)
    trust = signature.Trust(keyrings.Keyring(fakes.keyring(tmp_path)))
    told.cards = subscriber.CardSubscriber(told.router, told, trust)
    told.cards.start()
    yield told
    await told.cards.stop()
    await told.router.close()


async def test_all_other_cards_come_in_when_one_of_many_can_not_be_embedded(follower, monkeypatch):
    monkeypatch.setattr(subscriber, "_RECORDS_AT_A_TIME", 2)
    monkeypatch.setattr(subscriber, "_PAUSE_S", 0.0)
    things = ("Spoilt", "Alvmere", "Skarn", "Tarn", "Brun")
    assert not follower.cards.listed
    follower.list(*(record(f"c{n}", thing, n == 1) for n, thing in enumerate(things)))
    async with asyncio.timeout(60):
        while follower.cards.revision != follower.revision:
            await asyncio.sleep(0.01)
    assert fake_routers.names(follower.router) == {"c2", "c3", "c4"}
    assert fake_routers.names(follower.router, virtual=True) == {"c1"}
    # Else one spoilt card would keep every draft from being rehearsed.
    assert follower.cards.listed
