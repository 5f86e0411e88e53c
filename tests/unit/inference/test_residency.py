"""Which cards are in memory: the budget, who leaves for whom, and who may not."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest

from services.inference import residency
from shared import errors


@dataclasses.dataclass(frozen=True)
class FakeCard:
    size: int


class FakeSlots:
    """Remembers what is in; `apply` and `remove` take a turn of the event loop."""

    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.most_bytes = 0
        self.failures: list[Exception] = []

    def cost_bytes(self, card: FakeCard) -> int:
        return card.size

    async def apply(self, card: FakeCard, key: str) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop()
        assert key not in self.inside
        self.inside[key] = card.size
        self.most_bytes = max(self.most_bytes, sum(self.inside.values()))

    async def remove(self, key: str) -> None:
        await asyncio.sleep(0)
        del self.inside[key]


class Node:
    """A residency of cards with a given size, and how often each was got."""

    def __init__(self, budget: int) -> None:
        self.slots = FakeSlots()
        self.cards = residency.Residency(self.slots, budget)
        self.got: list[str] = []

    def serve(self, key: str, size: int) -> None:
        def get() -> FakeCard:
            self.got.append(key)
            return FakeCard(size)

        self.cards.add(key, get)
        self.cards.serve(key)

    async def use(self, key: str) -> None:
        release = self.cards.hold(key)
        await self.cards.load(key)
        release()


@pytest.fixture
async def node():
    yield Node(budget=100)


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_card_comes_in_when_it_is_first_used_and_is_got_once(node):
    node.serve("a", 40)
    assert (node.cards.served(), node.cards.resident()) == (["a"], [])
    await asyncio.gather(*[node.use("a") for _ in range(5)])
    assert (node.cards.resident(), node.got, node.cards.held_bytes) == (["a"], ["a"], 40)


async def test_card_used_longest_ago_leaves_when_room_is_needed(node):
    for key in "abc":
        node.serve(key, 40)
    for key in ("a", "b", "a", "c"):
        await node.use(key)
    assert node.cards.resident() == ["a", "c"]
    assert node.cards.served() == ["a", "b", "c"]
    await node.use("b")
    assert node.cards.resident() == ["c", "b"]
    assert node.got == ["a", "b", "c", "b"]
    assert node.slots.most_bytes <= 100


async def test_several_leave_when_a_large_card_comes(node):
    for key in "abcd":
        node.serve(key, 25)
        await node.use(key)
    node.serve("large", 70)
    await node.use("large")
    assert node.cards.resident() == ["d", "large"]


async def test_card_in_use_stays_and_the_next_waits_until_it_is_released(node):
    node.serve("a", 60)
    node.serve("b", 60)
    release = node.cards.hold("a")
    await node.cards.load("a")
    other = asyncio.create_task(node.use("b"))
    await _settle()
    assert not other.done() and node.cards.resident() == ["a"]
    release()
    await other
    assert node.cards.resident() == ["b"]


async def test_pinned_card_stays_until_it_is_unpinned(node):
    for key in "ab":
        node.serve(key, 60)
    await node.use("a")
    node.cards.pin("a")
    with pytest.raises(errors.CapacityError, match=r"b needs 60 .* pinned cards hold 60"):
        await node.use("b")
    node.cards.pin("a", False)
    await node.use("b")
    assert node.cards.resident() == ["b"]


async def test_error_is_clear_and_others_stay_when_a_card_can_never_fit(node):
    node.serve("a", 50)
    await node.use("a")
    node.serve("huge", 101)
    with pytest.raises(errors.CapacityError, match="card_memory_mib"):
        await node.use("huge")
    assert node.cards.resident() == ["a"] and node.cards.held_bytes == 50


async def test_card_without_a_source_is_pinned(node):
    node.cards.add("given", None)
    await node.cards.load("given", FakeCard(60))
    node.cards.serve("given")
    node.serve("b", 60)
    with pytest.raises(errors.CapacityError):
        await node.use("b")
    with pytest.raises(errors.PreconditionError, match="given as an object"):
        node.cards.pin("given", False)


async def test_nobody_leaves_when_a_card_may_not_evict(node):
    for key in "ab":
        node.serve(key, 60)
    await node.cards.load("a", evict=False)
    await node.cards.load("b", evict=False)
    assert node.cards.resident() == ["a"]
    # Whoever asks meanwhile gets it all the same.
    gentle = asyncio.create_task(node.cards.load("b", evict=False))
    await asyncio.gather(gentle, node.use("b"))
    assert node.cards.resident() == ["b"]


async def test_all_who_wait_are_told_and_the_next_succeeds_when_a_load_fails(node):
    node.serve("a", 40)
    node.slots.failures.append(errors.InvalidInputError("shape"))
    told = await asyncio.gather(*[node.use("a") for _ in range(3)], return_exceptions=True)
    assert all(isinstance(one, errors.InvalidInputError) for one in told)
    assert node.cards.held_bytes == 0
    await node.use("a")
    assert node.cards.resident() == ["a"]


async def test_others_get_the_card_when_the_first_who_waits_gives_up(node):
    node.serve("a", 40)
    first, second = (asyncio.create_task(node.cards.load("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled() or first.done()
    assert node.got == ["a"]


async def test_removal_waits_for_references_and_refuses_new_ones_at_once(node):
    node.serve("a", 40)
    release = node.cards.hold("a")
    await node.cards.load("a")
    removal = asyncio.create_task(node.cards.remove("a"))
    await _settle()
    assert node.cards.served() == [] and not removal.done()
    with pytest.raises(errors.NotFoundError):
        node.cards.hold("a")
    release()
    await removal
    assert node.slots.inside == {} and node.cards.held_bytes == 0


async def test_card_stays_when_it_is_served_again_while_it_leaves(node):
    node.serve("a", 40)
    release = node.cards.hold("a")
    await node.cards.load("a")
    removal = asyncio.create_task(node.cards.remove("a"))
    await _settle()
    node.serve("a", 40)
    release()
    await removal
    assert node.cards.resident() == ["a"] and node.got == ["a"]


async def test_budget_holds_and_everyone_is_served_when_many_ask_at_random(node):
    chance = random.Random(7)
    sizes = {f"card{n}": chance.choice([10, 25, 40, 90]) for n in range(12)}
    for key, size in sizes.items():
        node.serve(key, size)

    async def user() -> None:
        for _ in range(20):
            key = chance.choice(list(sizes))
            release = node.cards.hold(key)
            await node.cards.load(key)
            assert key in node.slots.inside
            await asyncio.sleep(0)
            assert key in node.slots.inside
            release()

    await asyncio.gather(*[user() for _ in range(10)])
    assert node.slots.most_bytes <= 100
    assert sum(node.slots.inside.values()) == node.cards.held_bytes


async def test_card_that_fits_comes_in_while_a_large_one_waits(node):
    node.cards._patience_s = 0.2
    node.serve("hot", 60)
    node.serve("large", 60)
    node.serve("small", 10)
    await node.use("hot")
    release = node.cards.hold("hot")
    large = asyncio.create_task(node.use("large"))
    await _settle()
    await node.use("small")
    assert node.slots.inside == {"hot": 60, "small": 10}
    with pytest.raises(errors.OverloadedError, match=r"large found no room for 0\.2 s"):
        await large
    release()
    await node.use("large")
    assert "large" in node.slots.inside


async def test_pinned_card_leaves_at_once_when_it_is_let_go_and_nobody_uses_it(node):
    for key in "ab":
        node.serve(key, 40)
        await node.use(key)
    node.cards.pin("a")
    assert (node.cards.pinned(), node.cards.resident()) == (["a"], ["a", "b"])
    await node.cards.let_go("a")
    assert (node.cards.pinned(), node.cards.resident()) == ([], ["b"])
    assert node.cards.served() == ["a", "b"] and node.slots.inside == {"b": 40}
    await node.use("a")
    assert node.cards.resident() == ["b", "a"] and node.got == ["a", "b", "a"]


async def test_card_stays_for_its_request_when_it_is_let_go_while_it_is_used(node):
    node.serve("a", 40)
    node.serve("b", 80)
    release = node.cards.hold("a")
    await node.cards.load("a")
    node.cards.pin("a")
    await node.cards.let_go("a")
    assert (node.cards.pinned(), node.cards.resident()) == ([], ["a"])
    release()
    await node.use("b")
    assert node.cards.resident() == ["b"]


async def test_card_is_not_let_go_when_it_is_not_known_or_could_not_come_back(node):
    with pytest.raises(errors.NotFoundError):
        await node.cards.let_go("nobody")
    node.cards.add("given", None)
    node.cards.serve("given")
    await node.cards.load("given", FakeCard(10))
    with pytest.raises(errors.PreconditionError, match="given"):
        await node.cards.let_go("given")
    assert node.cards.pinned() == node.cards.resident() == ["given"]
