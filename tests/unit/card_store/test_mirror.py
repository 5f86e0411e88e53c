from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.card_store import data_plane, mirror, records
from shared import errors
from shared import settings as config
from shared.cards import format as formats
from shared.cards import signature
from shared.rpc import watch
from tests import fakes
from tests.unit.card_store.house import House

ME, ORIGIN, GIVER, OTHER = "me", "origin", "giver", "other"
LARGEST = 1_000_000
PUBLISHED = watch.ChangeKind.CARD_PUBLISHED


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def mirror_of(
    house: House, bandwidth: mirror.Bandwidth | None = None, **policy: Any
) -> mirror.Mirror:
    """Takes records alone where it is not told otherwise: no data plane is needed."""
    chosen = config.Mirror(**({"fetch": "on_use"} | policy))
    limit = bandwidth or mirror.Bandwidth(0)
    return mirror.Mirror(
        house.store, house.files, house.cards.copies, ME, chosen, limit, largest_bytes=LARGEST
    )


def card(name: str = "tiny", version: str = "1.0.0", seed: int = 0) -> watch.CardRecord:
    made = fakes.tiny_card(name, version, seed)
    data = formats.LoRAFormat.to_bytes(made)
    digest = hashlib.sha256(data).hexdigest()
    return watch.CardRecord(
        name=name,
        digest=digest,
        version=version,
        domain=made.manifest.domain,
        description=made.manifest.description,
        base_fingerprint=made.manifest.base_model.fingerprint,
        size_bytes=len(data),
        created_at_ms=1,
        aliases=("latest",),
        manifest_json=made.manifest.to_json(),
        signature_json=fakes.envelope(made, digest),
        origin=ORIGIN,
    )


def gone(record: watch.CardRecord, state: watch.CardState) -> watch.Change:
    kinds = {
        watch.CardState.REVOKED: watch.ChangeKind.CARD_REVOKED,
        watch.CardState.DELETED: watch.ChangeKind.CARD_DELETED,
    }
    return watch.Change(kinds[state], 2, dataclasses.replace(record, state=state, aliases=()))


async def state_of(house: House, record: watch.CardRecord) -> records.CardState:
    return (await house.store.get(record.digest)).state


def test_rate_holds_for_all_together_when_several_fetch() -> None:
    clock = Clock()
    bandwidth = mirror.Bandwidth(1000.0, clock, clock.sleep)
    chunks = [memoryview(bytes(size)) for size in (500, 250, 250)]
    one, two = bandwidth.limited(chunks), bandwidth.limited(chunks)
    at_s = []
    for _ in chunks:
        for each in (one, two):
            next(each)
            at_s.append(clock.now_s - 100.0)
    assert at_s == pytest.approx([0.5, 1.0, 1.25, 1.5, 1.75, 2.0])
    # What was not used while nothing was fetched is not saved up.
    clock.sleep(60.0)
    assert list(bandwidth.limited(chunks)) == chunks
    assert clock.now_s == pytest.approx(100.0 + 2.0 + 60.0 + 1.0)


def test_nothing_waits_when_there_is_no_limit() -> None:
    clock = Clock()
    chunks = [memoryview(bytes(10**6))]
    assert list(mirror.Bandwidth(0, clock, clock.sleep).limited(chunks)) == chunks
    assert clock.now_s == 100.0


@pytest.fixture
async def origin(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    """The data plane of a store with the card; its address."""
    (tmp_path / "origin").mkdir()
    there = House(tmp_path / "origin")
    await there.store.commit("card", there.stage_card())
    plane = data_plane.LoRAFlightServer("127.0.0.1:0", there.files, there.cards, 2**20)
    yield f"127.0.0.1:{plane.port}"
    plane.stop()
    there.close()


async def test_card_arrives_when_the_rate_alone_takes_longer_than_a_fetch_may(
    house: House, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_LONGEST_FETCH_S", 0.1)
    monkeypatch.setattr(mirror, "_FETCHES_AT_ONCE", 100)  # Its deadline allows for them all.
    mirroring = mirror_of(house, mirror.Bandwidth(card().size_bytes / 0.5), fetch="at_once")
    assert await mirroring.take(watch.Change(PUBLISHED, 1, card()), ORIGIN, origin)
    assert house.cards.holds(card().digest)
    mirroring.close()


async def test_fetch_ends_at_once_when_the_store_stops(house: House, origin: str) -> None:
    asleep = asyncio.Event()
    loop, bandwidth = asyncio.get_running_loop(), mirror.Bandwidth(0.001)
    wait = bandwidth._sleep

    def sleep(seconds: float) -> object:
        loop.call_soon_threadsafe(asleep.set)
        return wait(seconds)

    bandwidth._sleep = sleep
    mirroring = mirror_of(house, bandwidth, fetch="at_once")
    taking = asyncio.create_task(mirroring.take(watch.Change(PUBLISHED, 1, card()), ORIGIN, origin))
    await asleep.wait()
    async with asyncio.timeout(10):
        await asyncio.to_thread(mirroring.close)
        with pytest.raises(errors.UnavailableError, match="stops"):
            await taking


@pytest.mark.parametrize(
    ("policy", "is_taken"),
    [
        ({}, True),
        ({"domains": ["law", "test*"]}, True),
        ({"domains": ["law", "Test*"]}, False),
        ({"domains": []}, False),
        ({"base_models": ["embed*"]}, True),
        ({"base_models": ["f" * 64]}, True),
        ({"base_models": ["Qwen/*"]}, False),
        ({"domains": ["testing"], "base_models": ["Qwen/*"]}, False),
    ],
)
async def test_card_is_taken_when_domain_and_base_are_wanted(
    house: House, policy: dict[str, Any], is_taken: bool
) -> None:
    change = watch.Change(PUBLISHED, 1, card())
    assert await mirror_of(house, **policy).take(change, ORIGIN, "flight:1") == is_taken
    assert house.cards.totals().cards == is_taken


@pytest.mark.parametrize("at", [0, 1])
async def test_card_is_taken_when_its_signer_is_wanted(
    house: House, tmp_path: pathlib.Path, at: int
) -> None:
    fakes.keyring(tmp_path)
    settings = config.Settings(cluster=config.Cluster(state_dir=tmp_path))
    house.store = house.store_with(house.cards, signature.Trust.configured(settings).verify)
    wanted = fakes.signer(at).key_id
    change = watch.Change(PUBLISHED, 1, card())
    taken = await mirror_of(house, signers=[wanted]).take(change, ORIGIN, "flight:1")
    assert taken == (at == 0)
    unsigned = dataclasses.replace(card("unsigned", seed=1), signature_json="")
    change = watch.Change(PUBLISHED, 2, unsigned)
    assert not await mirror_of(house).take(change, ORIGIN, "flight:1")


@pytest.mark.parametrize(("size_bytes", "taken"), [(LARGEST, True), (LARGEST + 1, False)])
async def test_card_is_passed_over_when_it_says_that_it_is_too_large(
    house: House, size_bytes: int, taken: bool
) -> None:
    change = watch.Change(PUBLISHED, 1, dataclasses.replace(card(), size_bytes=size_bytes))
    assert await mirror_of(house).take(change, ORIGIN, "flight:1") is taken


async def test_card_is_not_taken_when_it_is_known_own_or_withdrawn(house: House) -> None:
    mirroring = mirror_of(house)
    own = dataclasses.replace(card(), origin=ME)
    revoked = dataclasses.replace(card(), state=watch.CardState.REVOKED)
    for record in (own, revoked):
        assert not await mirroring.take(watch.Change(PUBLISHED, 1, record), GIVER, "flight:1")
    change = watch.Change(PUBLISHED, 1, card())
    assert await mirroring.take(change, GIVER, "flight:1")
    for peer in (GIVER, ORIGIN, GIVER):
        assert not await mirroring.take(change, peer, "flight:1")
    assert house.cards.totals().revision == 1


@pytest.mark.parametrize(("peer", "counts"), [(ORIGIN, True), (GIVER, True), (OTHER, False)])
async def test_revocation_counts_when_origin_or_giver_says_it(
    house: House, peer: str, counts: bool
) -> None:
    mirroring, record = mirror_of(house), card()
    await mirroring.take(watch.Change(PUBLISHED, 1, record), GIVER, "flight:1")
    # That the other one has it, too, makes no giver of it.
    house.cards.copies.remember(OTHER, records.PeerCursor("o:1", 1), {record.digest: True})
    await mirroring.take(gone(record, watch.CardState.REVOKED), peer, "flight:1")
    expected = records.CardState.REVOKED if counts else records.CardState.ACTIVE
    assert await state_of(house, record) is expected


@pytest.mark.parametrize("is_here", [False, True])
@pytest.mark.parametrize("peer", [ORIGIN, GIVER])
async def test_deletion_takes_the_record_when_the_origin_had_the_only_bytes(
    house: House, peer: str, is_here: bool
) -> None:
    mirroring, record = mirror_of(house), card()
    await mirroring.take(watch.Change(PUBLISHED, 1, record), GIVER, "flight:1")
    if is_here:
        house.cards.arrived(record.digest)
    await mirroring.take(gone(record, watch.CardState.DELETED), peer, "flight:1")
    is_deleted = peer == ORIGIN and not is_here
    expected = records.CardState.DELETED if is_deleted else records.CardState.ACTIVE
    assert await state_of(house, record) is expected


async def test_withdrawal_is_ignored_when_the_card_was_never_taken(house: House) -> None:
    await mirror_of(house).take(gone(card(), watch.CardState.REVOKED), ORIGIN, "flight:1")
    with pytest.raises(errors.NotFoundError):
        await house.store.get(card().digest)
