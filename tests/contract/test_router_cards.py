"""The router over loopback: it routes to the cards that its card store has."""

from __future__ import annotations

import pytest

from tests import fake_router_peers as peers
from tests import fakes
from tests.contract import router_cluster

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> router_cluster.Cluster:
    router_cluster.practise_once(monkeypatch)
    return router_cluster.Cluster(tmp_path)


async def test_card_is_routed_to_when_the_store_publishes_it(cluster):
    store, record = peers.FakeStore(), peers.card_record("skarn", SKARN)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        assert (
            await router_cluster.route(stub, f"How tall is {SKARN}?", no_learning=True)
        ).dissonance
        revision = await store.publish(record)
        await router_cluster.until(stub, lambda s: s.revision == revision)
        identity = f"skarn@{record.digest}"

        async def routed() -> bool:
            answer = await router_cluster.route(
                stub, f"Which height has {SKARN}?", no_learning=True
            )
            return not answer.dissonance and answer.candidates[0].card == identity

        await router_cluster.eventually(routed)
        assert (await router_cluster.status(stub)).events_emitted == 0


async def test_other_version_answers_when_the_alias_moves_back(cluster):
    store = peers.FakeStore()
    old, new = (peers.card_record("skarn", SKARN, v) for v in ("1.0.0", "1.1.0"))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        for revision in (await store.publish(old), await store.publish(new)):
            await router_cluster.until(stub, lambda s, at=revision: s.revision >= at)
        assert list((await router_cluster.status(stub)).cards) == [f"skarn@{new.digest}"]
        revision = await store.move_latest(old)
        status = await router_cluster.until(stub, lambda s: s.revision == revision)
        assert list(status.cards) == [f"skarn@{old.digest}"]


async def test_version_before_is_routed_to_when_one_is_revoked(cluster):
    store = peers.FakeStore()
    old, new = (peers.card_record("skarn", SKARN, v) for v in ("1.0.0", "1.1.0"))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.publish(old)
        await router_cluster.until(stub, lambda s: list(s.cards) == [f"skarn@{old.digest}"])
        await store.publish(new)
        await router_cluster.until(stub, lambda s: list(s.cards) == [f"skarn@{new.digest}"])
        revision = await store.withdraw(old)
        status = await router_cluster.until(stub, lambda s: s.revision == revision)
        assert list(status.cards) == [f"skarn@{new.digest}"]
        await store.withdraw(new, instead=old)
        await router_cluster.until(stub, lambda s: list(s.cards) == [f"skarn@{old.digest}"])
        await store.withdraw(old)
        await router_cluster.until(stub, lambda s: not s.cards)


async def test_older_version_is_not_routed_to_when_it_is_mirrored_late(cluster):
    store = peers.FakeStore()
    old, new = (peers.card_record("skarn", SKARN, v) for v in ("1.0.0", "1.1.0"))
    del old.aliases[:]
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.publish(new)
        revision = await store.publish(old)
        status = await router_cluster.until(stub, lambda s: s.revision == revision)
        assert list(status.cards) == [f"skarn@{new.digest}"]


async def test_remote_card_is_routed_to_by_its_examples_when_a_peer_has_it(cluster):
    store, record = peers.FakeStore(), peers.card_record("skarn", SKARN)
    record.remote = True
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.publish(record)
        await router_cluster.until(stub, lambda s: list(s.cards) == [f"skarn@{record.digest}"])

        async def routed() -> bool:
            answer = await router_cluster.route(
                stub, f"Which height has {SKARN}?", no_learning=True
            )
            return not answer.dissonance and answer.candidates[0].nearest_example != ""

        await router_cluster.eventually(routed)
        store.latest.clear()
        store.store_id = "store-2"  # Listed anew, and the listing no longer has it.
        await store.drop()
        await router_cluster.until(stub, lambda s: not s.cards)


async def test_store_is_listed_anew_when_a_listing_has_become_old(cluster):
    cluster.list_every_s = 0.2
    store, record = peers.FakeStore(), peers.card_record("skarn", SKARN)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        store.latest["skarn"] = record  # Nobody is told.
        await router_cluster.until(stub, lambda s: list(s.cards) == [f"skarn@{record.digest}"])
        assert store.watched_from == [0]


async def test_cards_are_joined_when_the_store_was_down_at_the_start(cluster):
    store = peers.FakeStore()
    await store.publish(peers.card_record("skarn", SKARN))
    async with cluster.router() as stub:
        assert (
            await router_cluster.route(stub, "Who serves?", no_learning=True)
        ).none_probability == 1.0
        async with peers.store_server(store, cluster.store_address):
            status = await router_cluster.until(stub, lambda s: s.revision == 1)
            assert len(status.cards) == 1


async def test_watch_is_resumed_when_the_line_breaks(cluster):
    store = peers.FakeStore()
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        await store.publish(peers.card_record("skarn", SKARN))
        await router_cluster.until(stub, lambda s: s.revision == 1)
        await store.drop()
        await store.publish(peers.card_record("tarn", TARN))
        status = await router_cluster.until(stub, lambda s: s.revision == 2)
        assert len(status.cards) == status.card_count == 2
        await store.watched(2)
        assert store.watched_from[-1] in (1, 2)
        assert store.listings == 1


async def test_store_is_found_again_when_it_falls_silent(cluster):
    cluster.silence_s = 0.3
    store, other = peers.FakeStore(), peers.FakeStore("store-2")
    await other.publish(peers.card_record("tarn", TARN))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        await store.publish(peers.card_record("skarn", SKARN))
        await router_cluster.until(stub, lambda s: s.revision == 1)
        async with peers.store_server(other) as address:
            cluster.store_address = address
            store.silent = True
            await other.watched(1)
            # Another store is another truth: its listing replaces what was known.
            await router_cluster.until(
                stub, lambda s: [c.split("@")[0] for c in s.cards] == ["tarn"]
            )


async def test_broken_manifest_is_skipped_when_others_are_fine(cluster):
    store = peers.FakeStore()
    broken = peers.card_record("broken", TARN)
    broken.manifest_json = "{"
    await store.publish(broken)
    await store.publish(peers.card_record("skarn", SKARN))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        status = await router_cluster.until(stub, lambda s: s.revision == 2)
        assert [c.split("@")[0] for c in status.cards] == ["skarn"]


async def test_card_is_not_routed_to_when_nobody_trusted_signed_it(cluster):
    store = peers.FakeStore()
    forged, unsigned = peers.card_record("forged", TARN), peers.card_record("unsigned", TARN)
    forged.signature_json = peers.card_record("other", TARN).signature_json
    unsigned.signature_json = ""
    for record in (forged, unsigned, peers.card_record("skarn", SKARN)):
        await store.publish(record)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        status = await router_cluster.until(stub, lambda s: s.revision == 3)
        assert [c.split("@")[0] for c in status.cards] == ["skarn"]


@pytest.mark.parametrize("restarts", [False, True])
async def test_cards_of_a_key_are_not_routed_to_when_it_is_revoked(cluster, restarts):
    store, theirs = peers.FakeStore(), fakes.signer(1)
    fakes.keyring(cluster.state_dir, theirs)
    ours = peers.card_record("skarn", SKARN)
    await store.publish(ours)
    await store.publish(peers.card_record("tarn", TARN, by=theirs))
    async with peers.store_server(store, cluster.store_address):
        async with cluster.router() as stub:
            await router_cluster.until(stub, lambda s: len(s.cards) == 2)
            if not restarts:
                revision = await store.revoke_key(theirs.key_id)
                status = await router_cluster.until(stub, lambda s: s.revision == revision)
                assert list(status.cards) == [f"skarn@{ours.digest}"]
                revision = await store.publish(peers.card_record("tarn", TARN, "1.1.0", theirs))
                status = await router_cluster.until(stub, lambda s: s.revision == revision)
                assert list(status.cards) == [f"skarn@{ours.digest}"]
                return
        await store.revoke_key(theirs.key_id)
        async with cluster.router() as stub:
            status = await router_cluster.until(stub, lambda s: s.revision == 3)
            assert list(status.cards) == [f"skarn@{ours.digest}"]
