"""The node's cards follow the store's, whatever one card does."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib

import pytest

from services.inference import choosing, reporting, subscriber
from services.inference import engine as engines
from shared import errors
from shared import settings as config
from shared.cards import keyring as keyrings
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.rpc import watch
from tests import fake_store_follower as fakes
from tests import tiny_model


class _Trust(signature.Trust):
    """Takes unsigned cards, but for those that a test names."""

    def __init__(self) -> None:
        super().__init__(keyrings.Keyring(pathlib.Path("nowhere")), required=False)
        self.untrusted: set[str] = set()

    def verify(self, card) -> str:
        if card.digest in self.untrusted:
            raise errors.UntrustedError(f"card {card.name} is not signed")
        return super().verify(card)


class _Node:
    def __init__(self, base) -> None:
        self.base = base
        self.trust = _Trust()
        self.untrusted = self.trust.untrusted
        self.files = fakes.FakeFiles()
        self.follower = fakes.FakeFollower()
        self.engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=4))
        self.cards = subscriber.CardSubscriber(
            self.engine, self.follower, self.files, self.trust, self.bring, clock_ms=lambda: 42
        )
        self.brought: list[tuple[str, str]] = []

    async def bring(self, control: str, digest: str) -> None:
        self.brought.append((control, digest))

    def record(self, name: str, seed: int = 1, **more):
        return self.files.add(tiny_model.card_for(self.base, name, seed=seed, **more))

    async def until_served(self, *records) -> None:
        wanted = {f"{record.name}@{record.digest}" for record in records}
        while set(self.engine.served()) != wanted:
            await asyncio.sleep(0)


@pytest.fixture
async def node(base):
    made = _Node(base)
    made.engine.start()
    made.cards.start()
    yield made
    await made.cards.stop()
    await made.engine.stop()


async def test_exactly_the_listed_cards_are_served_when_a_listing_comes(node):
    a, b, c = (node.record(name, seed) for seed, name in enumerate("abc"))
    node.follower.list(a, b)
    await node.until_served(a, b)
    node.follower.list(b, c)
    await node.until_served(b, c)
    assert node.cards.revision == 2
    while {swap.card[0] for swap in node.cards.swaps} != {"a", "b", "c"}:
        await asyncio.sleep(0)
    assert all(swap.at_ms == 42 and swap.fetch_ms > 0 < swap.swap_ms for swap in node.cards.swaps)


async def test_new_version_replaces_the_old_one_when_it_is_published(node):
    old, new = node.record("a", 1), node.record("a", 2, version="1.1.0")
    node.follower.list(old)
    await node.until_served(old)
    node.follower.publish(new)
    await node.until_served(new)
    node.follower.move(old, "latest")
    await node.until_served(old)


async def test_nothing_changes_when_another_alias_moves(node):
    old, new, mark = node.record("a", 1), node.record("a", 2), node.record("z", 3)
    node.follower.list(old)
    await node.until_served(old)
    node.follower.move(new, "production")
    node.follower.publish(mark)
    await node.until_served(old, mark)
    assert new.digest not in node.files.asked


async def test_card_is_skipped_when_it_is_for_another_base(node):
    other, good = node.record("other", fingerprint="0" * 64), node.record("good")
    node.follower.list(other)
    node.follower.publish(good)
    await node.until_served(good)
    assert node.files.asked == [good.digest]


async def test_fetch_is_tried_again_when_it_failed(node):
    record = node.record("a")
    node.files.failures[record.digest] = [errors.UnavailableError("gone"), OSError("disk")]
    node.follower.list(record)
    await node.until_served(record)
    assert node.files.asked == [record.digest] * 3


async def test_other_cards_go_on_when_one_fails_for_ever(node):
    stuck, good = node.record("stuck"), node.record("good", 2)
    node.files.failures[stuck.digest] = [errors.UnavailableError("gone")] * 10_000
    node.follower.list(stuck)
    node.follower.publish(good)
    await node.until_served(good)
    fixed = node.record("stuck", 3)
    node.follower.publish(fixed)
    await node.until_served(good, fixed)


async def test_old_version_stays_when_the_new_one_is_not_trusted(node):
    old, forged, mark = node.record("a", 1), node.record("a", 2), node.record("mark", 3)
    node.follower.list(old)
    await node.until_served(old)
    node.untrusted.add(forged.digest)
    node.follower.publish(forged)
    node.follower.publish(mark)
    await node.until_served(old, mark)
    assert forged.digest not in node.files.asked


async def test_old_version_stays_when_the_new_one_is_bad(node):
    old, bad, mark = node.record("a", 1), node.record("a", 2), node.record("mark", 3)
    node.follower.list(old)
    await node.until_served(old)
    node.files.failures[bad.digest] = [errors.CardFormatError("module x: field rank: wrong")]
    node.follower.publish(bad)
    node.follower.publish(mark)
    await node.until_served(old, mark)
    newest = node.record("a", 4)
    node.follower.publish(newest)
    await node.until_served(newest, mark)
    assert node.files.asked.count(bad.digest) == 1


async def test_subscription_lives_on_when_a_card_fails_unexpectedly(node):
    record = node.record("a")
    node.files.failures[record.digest] = [ZeroDivisionError("a defect")]
    node.follower.list(record)
    await node.until_served(record)


async def test_only_the_last_version_stays_when_many_come_at_once(node):
    records = [node.record("a", seed) for seed in range(6)]
    node.follower.list(records[0])
    for record in records[1:]:
        node.follower.publish(record)
    await node.until_served(records[-1])


async def test_next_version_comes_while_requests_still_use_the_first(node):
    first, second, third = (node.record("a", seed, version=f"1.{seed}.0") for seed in (1, 2, 3))
    node.follower.list(first)
    await node.until_served(first)
    release = node.engine._cards.hold(f"a@{first.digest}")
    node.follower.publish(second)
    await node.until_served(second)
    node.follower.publish(third)
    await node.until_served(third)
    assert f"a@{first.digest}" in node.engine.resident()
    node.follower.move(first, "latest")
    await node.until_served(first)
    release()
    while set(node.engine.resident()) != {f"a@{first.digest}"}:
        await asyncio.sleep(0)


async def test_revoked_card_goes_at_once_when_its_successor_is_still_on_its_way(node):
    first, second, third = (node.record("a", seed, version=f"1.{seed}.0") for seed in (1, 2, 3))
    node.follower.list(second)
    await node.until_served(second)
    node.files.failures[third.digest] = [errors.UnavailableError("gone")] * 10_000
    node.follower.publish(third)
    node.follower.withdraw(second)
    await node.until_served()
    node.follower.withdraw(third, revoked=False)
    node.follower.move(first, "latest")
    await node.until_served(first)


async def test_card_is_not_served_when_it_is_revoked_while_it_comes(node):
    record, mark = node.record("a", 1), node.record("mark", 2)
    node.follower.list()
    node.follower.publish(record)
    node.follower.withdraw(record)
    node.follower.publish(mark)
    await node.until_served(mark)


async def test_card_is_fetched_when_it_is_first_asked_if_only_a_peer_has_it(node):
    record = dataclasses.replace(node.record("a"), remote=True)
    node.files.failures[record.digest] = [errors.NotFoundError("only on record")]
    node.follower.list(record)
    await node.until_served(record)
    key = f"a@{record.digest}"
    assert node.engine.resident() == [] and node.files.asked == []
    answer = await node.engine.generate("Who built it?", key)
    assert answer.card == key
    assert node.brought == [("control:1", record.digest)]
    assert node.files.asked == [record.digest] * 2


async def test_nothing_is_brought_when_a_remote_card_was_fetched_before(node):
    record = dataclasses.replace(node.record("a"), remote=True)
    node.follower.list(record)
    await node.until_served(record)
    await node.engine.generate("Who built it?", f"a@{record.digest}")
    assert node.brought == []


async def test_remote_card_is_not_served_when_it_is_not_trusted(node):
    forged, mark = dataclasses.replace(node.record("a"), remote=True), node.record("mark", 2)
    node.untrusted.add(forged.digest)
    node.follower.list(forged, mark)
    await node.until_served(mark)


async def test_remote_card_is_not_asked_when_its_record_names_another_route_than_its_file(node):
    forged = tiny_model.card_for(node.base, "a", route=manifests.SPECIALIST_LOCAL).manifest
    told = {"remote": True, "manifest_json": forged.to_json()}
    record = dataclasses.replace(node.record("a"), **told)
    node.follower.list(record)
    await node.until_served(record)
    key = f"a@{record.digest}"
    assert node.cards.of_route(manifests.SPECIALIST_LOCAL) == [key]
    with pytest.raises(errors.UntrustedError, match="another route"):
        await node.engine.generate("Who built it?", key)
    chosen = choosing.Choosing(node.engine, node.cards.of_route)
    assert await chosen.specialist("", None) is None


async def test_card_of_a_code_base_is_asked_when_only_a_peer_has_it(node):
    record = dataclasses.replace(node.record("a", route=manifests.SPECIALIST_LOCAL), remote=True)
    node.follower.list(record)
    await node.until_served(record)
    chosen = choosing.Choosing(node.engine, node.cards.of_route)
    assert await chosen.specialist("", None) == f"a@{record.digest}"


async def test_applied_listing_tells_what_came_when_some_can_not_be_had(node):
    old, good, stuck = node.record("old"), node.record("good", 2), node.record("stuck", 3)
    node.follower.list(old)
    await node.until_served(old)
    node.files.failures[stuck.digest] = [errors.UnavailableError("gone")] * 10_000
    came = await node.cards.apply(watch.Listing((old, good, stuck), 2, "control:1", "flight:1"))
    assert came == [f"good@{good.digest}"]


async def test_store_is_told_what_is_served_when_it_changes(node):
    a, b = node.record("a", 1), node.record("b", 2)
    told: asyncio.Queue[tuple] = asyncio.Queue()

    async def report(*args) -> None:
        await told.put(args)

    async def until_told(*records) -> None:
        wanted = {record.digest for record in records}
        while True:
            control, node_id, base, _, digests, _ = await told.get()
            assert (control, node_id, base) == ("control:1", "me", node.base.fingerprint)
            if set(digests) == wanted:
                return

    reporter = reporting.ResidencyReporter("me", node.engine, node.cards, report, every_s=3600)
    reporter.start()
    node.follower.list(a)
    await until_told(a)
    reporter.answers_at("here:7407")
    assert (await told.get())[-1] == "here:7407"
    node.follower.publish(b)
    await until_told(a, b)
    node.follower.withdraw(a)
    await until_told(b)
    await reporter.stop()


async def test_store_is_told_again_when_nothing_changes_and_when_it_was_away(node):
    record, reports = node.record("a"), []
    done = asyncio.Event()

    async def report(*args) -> None:
        reports.append(args[-2])
        if len(reports) == 1:
            raise errors.UnavailableError("away")
        if reports[-3:] == [[record.digest]] * 3:
            done.set()

    reporter = reporting.ResidencyReporter("me", node.engine, node.cards, report, every_s=0.01)
    reporter.start()
    node.follower.list(record)
    await done.wait()
    await reporter.stop()
