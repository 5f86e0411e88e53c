"""Trust in cards and its end: real stores, real nodes, and somebody who would like to cheat."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import sqlite3
from collections.abc import Iterator

import pytest

from services.card_store.catalogue import catalogue, schema
from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.models import base as bases
from shared.pb import cards_pb2, inference_pb2, types_pb2
from shared.rpc import client
from tests import fakes, tiny_model
from tests.contract import inference_nodes as nodes
from tests.contract.card_store_processes import Store

pytestmark = pytest.mark.usefixtures("patient")

OURS, THEIRS, STRANGER = (fakes.signer(seed) for seed in range(3))
LONG_TOKENS = 150


@pytest.fixture(scope="module")
def base() -> bases.BaseModel:
    return tiny_model.tiny_base(0)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[Store]:
    """Trusts two signers; takes nothing that is not signed."""
    fakes.keyring(tmp_path / "store", THEIRS)
    opened = Store(tmp_path / "store", security={"require_signatures": True})
    yield opened
    opened.stop()


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    """The state folder of a node that trusts the same two."""
    fakes.keyring(tmp_path / "node", THEIRS)
    return tmp_path / "node"


async def commit(store: Store, card: cards.LoRACard, signature_json: str) -> None:
    digest = await asyncio.to_thread(store.put, formats.LoRAFormat.to_bytes(card))
    request = cards_pb2.CommitRequest(
        ticket=types_pb2.Ticket(kind="card", digest=digest), signature_json=signature_json
    )
    async with store.stub() as stub:
        await client.call(stub.Commit, request)


async def revoke(store: Store, **what: str) -> None:
    async with store.stub() as stub:
        await client.call(stub.Revoke, cards_pb2.RevokeRequest(**what))


def tamper(store: Store, statement: str, *values: str) -> None:
    """Whoever can write the store's database can write anything."""
    path = store.root / "card_store" / "catalogue.db"
    with sqlite3.connect(path, timeout=10) as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def digest_of(key: str) -> str:
    return key.partition("@")[2]


async def test_store_and_node_refuse_a_card_when_nobody_trusted_vouches_for_it(
    store: Store, home: pathlib.Path, base: bases.BaseModel
) -> None:
    for place, wrong in enumerate(fakes.FORGERIES):
        card = tiny_model.card_for(base, f"forged-{place}", seed=place)
        data = formats.LoRAFormat.to_bytes(card)
        digest = await asyncio.to_thread(store.put, data)
        right = fakes.envelope(card, digest)
        with pytest.raises(errors.UntrustedError):
            await commit(store, card, fakes.forged(wrong, right, STRANGER))
        assert store.staged() == []
        # So it is published rightly, and somebody changes the store's book.
        await commit(store, card, right)
        forged = fakes.forged(wrong, right, STRANGER)
        tamper(store, "UPDATE cards SET signature_json = ? WHERE digest = ?", forged, digest)
    # A signer whom the store's keyring knows, and the node's does not.
    STRANGER.publish(store.root / "keyring")
    await nodes.publish(store, tiny_model.card_for(base, "strange", seed=50), STRANGER)
    good = await nodes.publish(store, tiny_model.card_for(base, "good", seed=51))
    async with nodes.running(home, [store.control_address]) as node:
        await node.until_served_is(good)
        mark = await nodes.publish(store, tiny_model.card_for(base, "mark", seed=52))
        await node.until_served_is(good, mark)
        for name in ("strange", "forged-0", "forged-1"):
            with pytest.raises(errors.NotFoundError, match="not served"):
                await node.ask(model=name)


async def test_revoked_cards_leave_a_running_node_and_answers_under_way_end_as_they_began(
    store: Store, home: pathlib.Path, base: bases.BaseModel
) -> None:
    named = [tiny_model.card_for(base, name, seed=n) for n, name in enumerate("abc", 1)]
    a, b, c = [
        await nodes.publish(store, card, by)
        for card, by in zip(named, (OURS, THEIRS, OURS), strict=True)
    ]
    async with nodes.running(home, [store.control_address]) as node:
        await node.until_served_is(a, b, c)

        async def answer(key: str, begun: asyncio.Event) -> str:
            request = inference_pb2.GenerateRequest(
                query=nodes.QUERY, model=key, max_new_tokens=LONG_TOKENS
            )
            text = ""
            async for chunk in node.stub.GenerateStream(request, timeout=60):
                text += chunk.text
                begun.set()
            assert chunk.final.card == key
            return text

        begun = {key: asyncio.Event() for key in (a, b)}
        answers = [asyncio.create_task(answer(key, event)) for key, event in begun.items()]
        await asyncio.gather(*(event.wait() for event in begun.values()))
        await revoke(store, digest=digest_of(a))
        await node.until_served_is(b, c)
        await revoke(store, key_id=THEIRS.key_id)
        await node.until_served_is(c)
        for key in (a, b, "a", "b"):
            with pytest.raises(errors.NotFoundError, match="not served"):
                await node.ask(model=key)
        for card, text in zip(named[:2], await asyncio.gather(*answers), strict=True):
            assert text == nodes.expected_of(card, tokens=LONG_TOKENS)
        while set((await node.status()).resident) != {c}:
            pass
        assert (await node.ask(model="c")).answer == nodes.expected_of(named[2])
    # The store does not give them away any more, nor take others of the key, restarted or not.
    for key in (a, b):
        with pytest.raises(errors.NotFoundError):
            await asyncio.to_thread(store.get, digest_of(key))
    with pytest.raises(errors.PreconditionError, match="revoked"):
        await nodes.publish(store, named[0])
    later = tiny_model.card_for(base, "d", seed=4)
    with pytest.raises(errors.UntrustedError, match="revoked"):
        await nodes.publish(store, later, THEIRS)
    assert store.control.end() == 0
    await asyncio.to_thread(store.restart_control)
    with pytest.raises(errors.UntrustedError, match="revoked"):
        await nodes.publish(store, later, THEIRS)


async def test_node_knows_what_was_revoked_when_it_was_away_and_even_if_the_store_forgets(
    store: Store, home: pathlib.Path, base: bases.BaseModel
) -> None:
    a, b, c = [
        await nodes.publish(store, tiny_model.card_for(base, name, seed=n), by)
        for n, (name, by) in enumerate((("a", OURS), ("b", THEIRS), ("c", OURS)))
    ]
    async with nodes.running(home, [store.control_address]) as node:
        await node.until_served_is(a, b, c)
    await revoke(store, digest=digest_of(a))
    await revoke(store, key_id=THEIRS.key_id)
    # Back in service by a hand in the store's book: the key is not.
    tamper(store, "UPDATE cards SET state = 'ACTIVE' WHERE digest = ?", digest_of(b))
    tamper(store, "INSERT INTO aliases VALUES ('b', 'latest', ?)", digest_of(b))
    async with store.stub() as stub:
        listed = await client.call(stub.ListCards, cards_pb2.ListCardsRequest())
    assert {card.name for card in listed.cards} == {"b", "c"}
    assert list(listed.revoked_keys) == [THEIRS.key_id]
    async with nodes.running(home, [store.control_address]) as node:
        await node.until_served_is(c)
        mark = await nodes.publish(store, tiny_model.card_for(base, "mark", seed=9))
        await node.until_served_is(c, mark)
        for name in ("a", "b"):
            with pytest.raises(errors.NotFoundError, match="not served"):
                await node.ask(model=name)


async def test_revocations_reach_a_node_when_the_log_was_compacted_while_the_line_was_down(
    store: Store, home: pathlib.Path, base: bases.BaseModel
) -> None:
    a, b, c = [
        await nodes.publish(store, tiny_model.card_for(base, name, seed=n), by)
        for n, (name, by) in enumerate((("a", OURS), ("b", THEIRS), ("c", OURS)))
    ]
    stores = [store.control_address]
    async with nodes.running(home, stores) as node:
        await node.until_served_is(a, b, c)
        store.control.end(signal.SIGKILL)
        book = catalogue.Catalogue(
            schema.open_database(f"sqlite:///{store.root / 'card_store' / 'catalogue.db'}")
        )
        book.retirement.revoke_card(digest_of(a))
        book.retirement.revoke_key(THEIRS.key_id, "stolen")
        oldest = book.compact(0)
        book.close()
        await asyncio.to_thread(store.restart_control)
        stores[:] = [store.control_address]
        status = await node.until_served_is(c)
        assert status.revision >= oldest
        assert manifests.card_identity("c", digest_of(c)) == c == (await node.ask(model="c")).card
