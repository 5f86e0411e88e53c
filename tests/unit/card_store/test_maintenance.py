from __future__ import annotations

import os
import pathlib

import pytest

from services.card_store import maintenance, records
from shared import errors, store_settings
from shared.cards import format as formats
from shared.flight import datasets
from tests import fakes
from tests.unit.card_store.house import House

DAY_MS = 24 * 3600 * 1000
NOW_MS = 1_000 * DAY_MS


def upkeep(house: House, **policy: object) -> maintenance.Maintenance:
    house.now_ms = NOW_MS
    settings = store_settings.CardStore.model_validate(policy)
    return maintenance.Maintenance(
        house.store, house.files, house.cards, settings, lambda: house.now_ms
    )


def blob(house: House, digest: str) -> pathlib.Path:
    return house.root / "blobs" / digest


def age(house: House, digest: str, days: float) -> None:
    at_s = (NOW_MS - days * DAY_MS) / 1000
    os.utime(blob(house, digest), (at_s, at_s))


async def commit_versions(house: House, count: int, name: str = "tiny") -> list[str]:
    digests = []
    for number in range(count):
        house.now_ms = NOW_MS - (count - number) * DAY_MS
        digest = house.stage_card(name, f"1.{number}.0", seed=number)
        await house.store.commit("card", digest)
        digests.append(digest)
    return digests


async def test_old_versions_go_when_the_policy_says_so(house: House) -> None:
    digests = await commit_versions(house, 12)
    others = await commit_versions(house, 1, "other")
    house.cards.aliases.set("tiny", "production", digests[0])
    retention = {"keep_versions": 2, "keep_days": 4.5}
    keeping = upkeep(house, retention=retention)
    told = await keeping.apply_retention(dry_run=True)
    assert house.cards.totals().revision == 14
    gone = await keeping.apply_retention()
    # 1.10 is newer than 1.9; four are too young, one is in production.
    assert set(told.cards) == set(gone.cards) == set(digests[1:8])
    assert house.cards.get("tiny@production").digest == digests[0]
    assert house.cards.get("tiny").digest == digests[11]
    assert house.cards.get(others[0]).state is records.CardState.ACTIVE
    assert (await keeping.apply_retention()).cards == ()


async def test_everything_stays_when_there_is_no_policy(house: House) -> None:
    await commit_versions(house, 3)
    digest = house.stage(datasets.to_bytes([]))
    await house.store.commit("dataset", digest)
    gone = await upkeep(house).apply_retention()
    assert gone == maintenance.Retained((), ())
    assert (await upkeep(house).collect_garbage()).digests == ()


async def test_files_go_only_when_no_record_needs_them(house: House) -> None:
    kept, deleted, revoked = await commit_versions(house, 3)
    orphan = house.stage_card("orphan")
    house.files.promote(orphan)
    young = house.stage_card("young")
    house.files.promote(young)
    dataset = house.stage(datasets.to_bytes([]))
    await house.store.commit("dataset", dataset)
    await house.store.delete(deleted)
    await house.store.revoke_card(revoked)
    for digest in (kept, deleted, revoked, orphan, dataset):
        age(house, digest, days=30)
    age(house, young, days=0.5)
    collecting = upkeep(house, garbage_hours=24)
    told = await collecting.collect_garbage(dry_run=True)
    assert all(blob(house, digest).exists() for digest in told.digests)
    sizes = sum(blob(house, digest).stat().st_size for digest in told.digests)
    gone = await collecting.collect_garbage()
    assert set(told.digests) == set(gone.digests) == {deleted, revoked, orphan}
    assert gone.size_bytes == sizes
    assert {file.digest for file in house.files.files()} == {kept, young, dataset}


async def test_file_stays_when_it_is_committed_while_garbage_is_collected(house: House) -> None:
    digest = house.stage_card()
    house.files.promote(digest)
    age(house, digest, days=30)
    collecting = upkeep(house)
    unneeded = collecting._unneeded
    house.cards.add_card(_record(digest))
    # What was found unneeded before is looked at again.
    collecting._remove([file for file in house.files.files() if file.digest == digest])
    assert blob(house, digest).exists() and unneeded() == []


def _record(digest: str) -> records.CardRecord:
    return records.CardRecord("tiny", digest, "1.0.0", "", "", "f" * 64, 1, 1, "{}")


async def test_datasets_go_when_no_card_in_service_was_made_of_them(house: House) -> None:
    house.now_ms = NOW_MS - 10 * DAY_MS
    pair = datasets.QAPair("q?", "a", ("q, then?",), "notes.md", "documents", 1.0)
    used = house.stage(datasets.to_bytes([pair]))
    unused = house.stage(datasets.to_bytes([]))
    for digest in (used, unused):
        await house.store.commit("dataset", digest)
        age(house, digest, days=10)
    card = fakes.tiny_card()
    lineage = {
        "task_id": "t",
        "teacher": "documents",
        "dataset_digest": used,
        "recipe": {},
        "seed": 0,
        "code_version": "1",
    }
    manifest = card.manifest.model_validate(card.manifest.model_dump() | {"lineage": lineage})
    made = house.stage(formats.LoRAFormat.to_bytes(type(card)(manifest, card.modules)))
    await house.store.commit("card", made)
    assert (await upkeep(house, retention={"datasets_days": 11}).apply_retention()).datasets == ()
    keeping = upkeep(house, retention={"datasets_days": 9})
    assert (await keeping.apply_retention()).datasets == (unused,)
    assert (await keeping.collect_garbage()).digests == (unused,)
    assert house.cards.holds(used) and not house.cards.holds(unused)
    # Once its card is out of service the other one goes as well.
    await house.store.delete(made)
    assert (await keeping.apply_retention()).datasets == (used,)


async def test_damage_is_found_when_files_are_verified(house: House) -> None:
    good, missing, longer, changed, deleted = await commit_versions(house, 5)
    await house.store.delete(deleted)
    blob(house, deleted).unlink()
    blob(house, missing).unlink()
    for digest, content in (
        (longer, blob(house, longer).read_bytes() + b"x"),
        (changed, bytes([blob(house, changed).read_bytes()[0] ^ 1])),
    ):
        whole = blob(house, digest).read_bytes()
        blob(house, digest).chmod(0o644)
        blob(house, digest).write_bytes(content + whole[len(content) :])
    seen = [inspection async for inspection in upkeep(house).verify()]
    faults = {inspection.digest: inspection.fault for inspection in seen if inspection.fault}
    assert faults.keys() == {missing, longer, changed}
    assert "missing" in faults[missing]
    assert "bytes instead of" in faults[longer]
    assert "SHA-256" in faults[changed]
    assert (seen[-1].checked, seen[-1].total) == (4, 4)
    assert good not in faults


async def test_upkeep_goes_on_by_itself_when_hours_are_set(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise StopAsyncIteration

    digests = await commit_versions(house, 3)
    keeping = upkeep(house, retention={"keep_versions": 1}, maintenance_hours=2, log_lines=2)
    monkeypatch.setattr(maintenance.asyncio, "sleep", sleep)
    # The first time the disk fails, which must not end it.
    monkeypatch.setattr(house.files, "files", _fails_once(house))
    with pytest.raises(StopAsyncIteration):
        await keeping.run()
    assert pauses == [600.0, 7200.0, 7200.0]
    assert house.cards.get(digests[0]).state is records.CardState.DELETED
    assert house.cards.totals().oldest_revision == 3
    await upkeep(house, maintenance_hours=0).run()


def _fails_once(house: House) -> object:
    real, calls = house.files.files, []

    def files() -> object:
        calls.append(1)
        if len(calls) == 1:
            raise errors.UnavailableError("the disk is away")
        return real()

    return files
