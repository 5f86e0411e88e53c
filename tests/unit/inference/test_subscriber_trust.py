"""What a node serves hangs on its own keyring and on the keys that were revoked since."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import threading
from collections.abc import AsyncIterator

import pytest

from services.inference import engine as engines
from services.inference import subscriber
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import keyring as keyrings
from shared.cards import signature
from shared.models import base as bases
from shared.rpc import watch
from tests import fake_store_follower, fakes, tiny_model

OURS, THEIRS, STRANGER = (fakes.signer(seed) for seed in range(3))


class SlowFiles(fake_store_follower.FakeFiles):
    """Gives nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()
        self.may_go.set()

    def card(self, digest: str, flight_address: str) -> cards.LoRACard:
        found = super().card(digest, flight_address)
        assert self.may_go.wait(30)
        return found


class Node:
    """A subscriber with a real engine that trusts two signers."""

    def __init__(self, base: bases.BaseModel, folder: pathlib.Path) -> None:
        self.base, self.keyring = base, fakes.keyring(folder, THEIRS)
        self.files, self.follower = SlowFiles(), fake_store_follower.FakeFollower()
        self.engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=4))
        trust = signature.Trust(keyrings.Keyring(self.keyring))
        self.cards = subscriber.CardSubscriber(
            self.engine, self.follower, self.files, trust, self.bring
        )

    async def bring(self, control: str, digest: str) -> None:
        raise AssertionError("nothing is at a peer here")

    def record(self, name: str, by: signature.Signer = OURS, seed: int = 1) -> watch.CardRecord:
        card = tiny_model.card_for(self.base, name, seed=seed)
        record = self.files.add(card)
        return dataclasses.replace(record, signature_json=fakes.envelope(card, record.digest, by))

    async def until_served(self, *records: watch.CardRecord) -> None:
        wanted = {f"{record.name}@{record.digest}" for record in records}
        async with asyncio.timeout(30):
            while set(self.engine.served()) != wanted:
                await asyncio.sleep(0)

    async def until_asked(self, record: watch.CardRecord) -> None:
        async with asyncio.timeout(30):
            while record.digest not in self.files.asked:
                await asyncio.sleep(0)


@pytest.fixture
async def node(base: bases.BaseModel, tmp_path: pathlib.Path) -> AsyncIterator[Node]:
    made = Node(base, tmp_path)
    made.engine.start()
    made.cards.start()
    yield made
    await made.cards.stop()
    await made.engine.stop()


@pytest.mark.parametrize("remote", [False, True])
async def test_card_is_not_even_fetched_when_its_signature_does_not_hold(
    node: Node, remote: bool
) -> None:
    node.follower.list()
    for place, wrong in enumerate(fakes.FORGERIES):
        right = node.record(f"forged-{place}", seed=place)
        forged = fakes.forged(wrong, right.signature_json, STRANGER)
        node.follower.publish(dataclasses.replace(right, signature_json=forged, remote=remote))
    good = node.record("good", seed=99)
    node.follower.publish(good)
    await node.until_served(good)
    assert node.files.asked == [good.digest]


async def test_cards_of_a_key_go_and_stay_away_when_it_is_revoked(node: Node) -> None:
    ours, theirs = node.record("ours"), node.record("theirs", THEIRS, 2)
    later, mark = node.record("later", THEIRS, 3), node.record("mark", OURS, 4)
    node.follower.list(ours, theirs)
    await node.until_served(ours, theirs)
    # No CARD_REVOKED follows: a node does not need the store to find its cards.
    node.follower.revoke_key(THEIRS.key_id)
    await node.until_served(ours)
    with pytest.raises(errors.NotFoundError, match="not served"):
        await node.engine.generate("Who built it?", f"theirs@{theirs.digest}")
    node.follower.publish(later)
    node.follower.publish(mark)
    await node.until_served(ours, mark)
    # Nor does a listing that still has them bring them back.
    node.follower.list(ours, theirs, later, mark)
    assert (
        await node.cards.apply(
            watch.Listing((ours, theirs, later, mark), 9, "control:1", "flight:1")
        )
        == []
    )
    assert later.digest not in node.files.asked


async def test_cards_of_a_key_go_when_a_listing_says_that_it_was_revoked(node: Node) -> None:
    ours, theirs = node.record("ours"), node.record("theirs", THEIRS, 2)
    node.follower.list(ours, theirs)
    await node.until_served(ours, theirs)
    node.follower.list(ours, theirs, revoked_keys=(THEIRS.key_id,))
    await node.until_served(ours)


async def test_card_is_not_served_when_its_key_is_revoked_while_it_comes(node: Node) -> None:
    ours, theirs = node.record("ours"), node.record("theirs", THEIRS, 2)
    node.files.may_go.clear()
    node.follower.list()
    node.follower.publish(theirs)
    await node.until_asked(theirs)
    node.follower.revoke_key(THEIRS.key_id)
    node.follower.publish(ours)
    await node.until_asked(ours)  # The revocation was heard before.
    node.files.may_go.set()
    await node.until_served(ours)
    assert await node.cards.apply(watch.Listing((ours,), 9, "control:1", "flight:1")) == []


async def test_card_goes_with_the_next_listing_when_its_key_left_the_keyring(node: Node) -> None:
    ours, theirs = node.record("ours"), node.record("theirs", THEIRS, 2)
    node.follower.list(ours, theirs)
    await node.until_served(ours, theirs)
    key = node.keyring / f"{THEIRS.key_id}.pem"
    pem = key.read_bytes()
    key.unlink()
    node.follower.list(ours, theirs)
    await node.until_served(ours)
    key.write_bytes(pem)
    node.follower.list(ours, theirs)
    await node.until_served(ours, theirs)


async def test_old_version_goes_alone_when_its_key_is_revoked_and_the_new_one_is_forged(
    node: Node,
) -> None:
    old, mark = node.record("a", THEIRS), node.record("mark", OURS, 2)
    forged = node.record("a", STRANGER, 3)
    node.follower.list(old)
    await node.until_served(old)
    node.follower.publish(forged)
    node.follower.publish(mark)
    await node.until_served(old, mark)
    node.follower.revoke_key(THEIRS.key_id)
    await node.until_served(mark)


async def test_evicted_card_is_refused_to_its_request_when_its_key_left_the_keyring(
    node: Node,
) -> None:
    remote = dataclasses.replace(node.record("a", THEIRS), remote=True)
    node.follower.list(remote)
    await node.until_served(remote)
    (node.keyring / f"{THEIRS.key_id}.revoked").touch()
    with pytest.raises(errors.UntrustedError, match="revoked"):
        await node.engine.generate("Who built it?", f"a@{remote.digest}")
    assert node.files.asked == []
