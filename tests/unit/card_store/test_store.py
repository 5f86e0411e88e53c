from __future__ import annotations

import asyncio
import dataclasses
import threading

import pyarrow as pa
import pytest

from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from shared import errors
from shared.flight import datasets, snapshots
from tests import fakes
from tests.unit.card_store.house import House

PAIR = datasets.QAPair("q?", "a", ("q, then?",), "notes.md", "documents", 1.0)


async def test_record_tells_the_manifest_when_a_card_is_committed(house: House) -> None:
    digest = house.stage_card()
    commit = await house.store.commit("card", digest)
    manifest = fakes.tiny_card().manifest
    assert commit == records.Commit(
        1,
        True,
        records.CardRecord(
            name="tiny",
            digest=digest,
            version="1.0.0",
            domain="testing",
            description=manifest.description,
            base_fingerprint=fakes.FINGERPRINT,
            size_bytes=(house.root / "blobs" / digest).stat().st_size,
            created_at_ms=1234,
            manifest_json=manifest.to_json(),
            aliases=("latest",),
        ),
    )
    assert await house.store.get("tiny") == commit.record
    status = await house.store.status()
    assert (status.totals.cards, status.flight_address, status.watchers) == (1, "host:1", 0)


async def test_dataset_is_committed_once_when_asked_twice(house: House) -> None:
    digest = house.stage(datasets.to_bytes([PAIR]))
    assert (await house.store.commit("dataset", digest)).created
    house.stage(datasets.to_bytes([PAIR]))
    assert not (await house.store.commit("dataset", digest)).created
    assert house.staged() == []


async def test_snapshot_is_kept_when_it_is_committed(house: House) -> None:
    tensor = snapshots.Tensor("habits", "a", "float32", (2, 3), pa.py_buffer(bytes(24)))
    digest = house.stage(snapshots.to_bytes([tensor]))
    with pytest.raises(errors.InvalidInputError, match="columns"):
        await house.store.commit("dataset", digest)
    assert (await house.store.commit("snapshot", digest)).created
    assert not (await house.store.commit("snapshot", digest)).created
    assert house.cards.holds(digest)
    # It is no dataset that no card was made of.
    assert house.cards.upkeep.unused_datasets(before_ms=2**62) == []
    assert digest in house.cards.upkeep.files()


async def test_upload_is_dropped_and_unseen_when_it_is_no_card(house: House) -> None:
    digest = house.stage(b"not a card")
    with pytest.raises(errors.CardFormatError):
        await house.store.commit("card", digest)
    assert house.staged() == []
    assert (await house.store.list_cards(records.Query(all_versions=True))).cards == ()


async def test_upload_is_refused_when_it_is_no_dataset(house: House) -> None:
    digest = house.stage_card()
    with pytest.raises(errors.InvalidInputError, match="columns"):
        await house.store.commit("dataset", digest)
    # The kind was wrong, not the file: as a card it is welcome.
    assert (await house.store.commit("card", digest)).created


async def test_dataset_is_refused_when_its_bytes_changed_on_disk(house: House) -> None:
    digest = house.stage(datasets.to_bytes([PAIR]))
    staged = house.root / "staging" / digest
    staged.unlink()
    staged.write_bytes(datasets.to_bytes([PAIR, PAIR]))
    with pytest.raises(errors.IntegrityError, match="SHA-256"):
        await house.store.commit("dataset", digest)
    assert house.staged() == []


async def test_upload_stays_when_the_ticket_has_another_size(house: House) -> None:
    digest = house.stage_card()
    with pytest.raises(errors.IntegrityError, match="the ticket says 1"):
        await house.store.commit("card", digest, size_bytes=1)
    assert (await house.store.commit("card", digest)).created


async def test_version_is_refused_and_dropped_when_it_has_another_digest(house: House) -> None:
    await house.store.commit("card", house.stage_card(seed=1))
    other = house.stage_card(seed=2)
    with pytest.raises(errors.AlreadyExistsError):
        await house.store.commit("card", other)
    assert house.files.find(other) is None


async def test_upload_is_dropped_when_the_key_that_signed_it_is_revoked(house: House) -> None:
    signed = house.store_with(house.cards, verify=lambda record: "key")
    assert (await signed.commit("card", house.stage_card("before"))).created
    await signed.revoke_key("key", "stolen")
    digest = house.stage_card("after")
    with pytest.raises(errors.UntrustedError, match=r"key key .* is revoked"):
        await signed.commit("card", digest)
    # Among the blobs it would stay for ever.
    assert house.files.find(digest) is None
    signed.close()


async def test_peers_card_is_dropped_when_its_version_is_taken(house: House) -> None:
    own = (await house.store.commit("card", house.stage_card(seed=1))).record
    assert own is not None
    digest = house.stage_card(seed=2)
    theirs = dataclasses.replace(own, digest=digest, origin="peer", aliases=())
    with pytest.raises(errors.AlreadyExistsError):
        await house.store.add_mirrored(theirs, "peer")
    assert house.files.find(digest) is None


@pytest.mark.parametrize(
    ("kind", "digest", "error"),
    [
        ("", "0" * 64, errors.InvalidInputError),
        ("card", "../../x", errors.InvalidInputError),
        ("card", "0" * 64, errors.NotFoundError),
        ("dataset", "0" * 64, errors.NotFoundError),
    ],
)
async def test_commit_is_refused_when_the_ticket_is_wrong(
    house: House, kind: str, digest: str, error: type[errors.SkillmeshError]
) -> None:
    with pytest.raises(error):
        await house.store.commit(kind, digest)


async def test_commit_works_again_when_the_process_died_before_the_catalogue(house: House) -> None:
    class DiesOnce(catalogue.Catalogue):
        def add_card(self, card: records.CardRecord) -> records.Commit:
            raise SystemError("killed here")

    engine = schema.open_database(f"sqlite:///{house.root / 'catalogue.db'}")
    dying = house.store_with(DiesOnce(engine))
    digest = house.stage_card()
    with pytest.raises(SystemError):
        await dying.commit("card", digest)
    dying.close()
    engine.dispose()
    assert house.files.committed(digest) is not None
    assert not house.cards.holds(digest)
    assert (await house.store.commit("card", digest)).created


async def test_watchers_hear_of_a_commit_when_its_caller_gave_up(house: House) -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Slow(catalogue.Catalogue):
        def add_card(self, card: records.CardRecord) -> records.Commit:
            reached.set()
            assert go_on.wait(30)
            return super().add_card(card)

    engine = schema.open_database(f"sqlite:///{house.root / 'catalogue.db'}")
    slow = house.store_with(Slow(engine))
    watch = slow.watch(0)
    assert (await anext(watch)).kind is records.ChangeKind.HEARTBEAT
    committing = asyncio.ensure_future(slow.commit("card", house.stage_card()))
    await asyncio.to_thread(reached.wait, 30)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    go_on.set()
    async with asyncio.timeout(30):
        while (change := await anext(watch)).kind is records.ChangeKind.HEARTBEAT:
            pass
    assert (change.kind, change.revision) == (records.ChangeKind.CARD_PUBLISHED, 1)
    await watch.aclose()
    slow.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("revision", "error"), [(-1, errors.InvalidInputError), (1, errors.PreconditionError)]
)
async def test_watch_is_refused_when_the_log_has_no_such_revision(
    house: House, revision: int, error: type[errors.SkillmeshError]
) -> None:
    with pytest.raises(error, match="from_revision"):
        await anext(house.store.watch(revision))
