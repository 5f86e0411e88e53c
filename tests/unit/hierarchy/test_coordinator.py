"""One hierarchy as its nodes and operators see it, without a wire in between."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.hierarchy import admission, coordinator, members, news, snapshot_files, status
from shared import errors
from shared.hierarchy import levels, messages, wire
from tests import fake_layers

BASE = members.Base("f" * 64, fake_layers.SHAPES)


class House:
    def __init__(self, folder: pathlib.Path, per_tick: int = 2, tick_s: float = 3600.0) -> None:
        self.made: list[fake_layers.FakeLayers] = []
        known = members.Members(folder, fake_layers.SPECS, 3, 4, lambda: 1000)
        gate = admission.Admission(per_tick, 6000.0, 2**20)
        files = snapshot_files.SnapshotFiles(folder / "snapshots", 2)
        self.coordinator = coordinator.Coordinator(
            known, gate, files, self.make, tick_s, clock_ms=lambda: 2000, heartbeat_s=0.05
        )

    def make(self, frame: wire.Frame) -> fake_layers.FakeLayers:
        self.made.append(fake_layers.FakeLayers(frame))
        return self.made[-1]

    @property
    def layers(self) -> fake_layers.FakeLayers:
        [made] = self.made
        return made

    async def join(self, agent: str = "ada", owner: str = "") -> coordinator.Joined:
        return await self.coordinator.join(agent, "node-1", owner, BASE)

    def submit(self, agent: str = "ada", sequence: int = 1, owner: str = "") -> bool:
        data = wire.submission_to_bytes(fake_layers.submission(agent, sequence))
        return self.coordinator.submit(agent, owner, sequence, len(data), lambda: data)


@pytest.fixture
async def house(tmp_path: pathlib.Path) -> AsyncIterator[House]:
    opened = House(tmp_path)
    yield opened
    await opened.coordinator.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_hierarchy_is_made_once_when_the_first_agents_join_together(house: House) -> None:
    with pytest.raises(errors.PreconditionError, match="no agent has joined"):
        await house.coordinator.tick()
    first, second = await asyncio.gather(house.join("ada"), house.join("bob"))
    assert house.layers.frame.shapes == fake_layers.SHAPES
    assert first == second and first.specs == fake_layers.SPECS
    assert first.snapshot.version == 0 and first.last_sequence == 0
    data = house.coordinator.snapshot_file(first.snapshot.digest).read_bytes()
    assert wire.snapshot_from_bytes(data, fake_layers.FRAME).version == 0


async def test_submission_counts_once_when_it_is_sent_again(house: House) -> None:
    await house.join()
    assert house.submit() and not house.submit()
    assert house.coordinator.waiting == 1
    assert (await house.coordinator.tick()).report.submissions == 1
    assert not house.submit()
    assert (await house.join()).last_sequence == 1


async def test_submission_is_refused_when_it_is_not_what_its_command_says(house: House) -> None:
    await house.join("ada")
    await house.join("bob")
    data = wire.submission_to_bytes(fake_layers.submission("ada", 1))
    for agent, sequence in (("bob", 1), ("ada", 2)):
        with pytest.raises(errors.InvalidInputError, match=r"'ada'.* number 1"):
            house.coordinator.submit(agent, "", sequence, len(data), lambda: data)
    assert not house.layers.pending and house.coordinator.activity("bob").refused == 1


async def test_nothing_is_received_when_the_submission_is_not_admitted(house: House) -> None:
    await house.join("ada", "token:north")

    def never() -> bytes:
        raise AssertionError("received")

    for agent, owner, kind in (
        ("ada", "token:south", errors.ForbiddenError),
        ("bob", "token:north", errors.PreconditionError),
    ):
        with pytest.raises(kind):
            house.coordinator.submit(agent, owner, 1, 10, never)
    for sequence in (1, 2):
        assert house.submit("ada", sequence, "token:north")
    with pytest.raises(errors.OverloadedError, match="next tick"):
        house.coordinator.submit("ada", "token:north", 3, 10, never)
    await house.coordinator.tick()
    assert house.submit("ada", 3, "token:north")


async def test_nothing_is_left_waiting_when_a_tick_takes_it_before_it_is_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.join()
    submit = house.layers.submit

    def submit_and_tick(submission: messages.Submission) -> bool:
        taken = submit(submission)
        house.layers.system_tick()
        return taken

    monkeypatch.setattr(house.layers, "submit", submit_and_tick)
    for sequence in (1, 2, 3):
        assert house.submit("ada", sequence) and house.coordinator.waiting == 0


async def test_tick_is_made_once_when_its_key_comes_again(house: House) -> None:
    await house.join()
    first = await house.coordinator.tick("key")
    assert await house.coordinator.tick("key") is first and house.layers.ticks == 1
    await house.coordinator.tick("other")
    await house.coordinator.tick()
    await house.coordinator.tick()
    assert house.layers.ticks == 4


async def test_tick_is_finished_when_its_caller_gives_up(house: House) -> None:
    await house.join()
    house.submit()
    house.layers.hold.clear()
    ticking = asyncio.create_task(house.coordinator.tick())
    await asyncio.sleep(0)
    ticking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ticking
    house.layers.hold.set()

    def published() -> bool:
        newest = house.coordinator.newest
        return newest is not None and newest.version == 1

    await until(published)
    assert house.coordinator.waiting == 0


async def test_submissions_wait_on_when_the_tick_fails(house: House) -> None:
    await house.join()
    house.submit()
    house.layers.fail = errors.OverloadedError("no room on disk")
    with pytest.raises(errors.OverloadedError, match="no room"):
        await house.coordinator.tick()
    assert house.coordinator.waiting == 1
    assert (await house.coordinator.tick()).report.submissions == 1


async def test_watcher_hears_of_snapshots_and_settlements_and_heartbeats(house: House) -> None:
    await house.join("ada")
    await house.join("bob")
    for agent, sequence in (("ada", 1), ("ada", 2), ("bob", 1)):
        house.submit(agent, sequence)
    await house.coordinator.tick()
    watching = house.coordinator.watch({"ada": 1}, "")
    first = await anext(watching)
    assert first.snapshot == house.coordinator.newest
    assert [(one.agent, one.sequence, one.version) for one in first.settlements] == [("ada", 2, 1)]
    assert await anext(watching) == news.News()
    waiting = asyncio.ensure_future(anext(watching))
    house.submit("ada", 3)
    await house.coordinator.tick()
    found = [await waiting]
    while not found[-1].settlements:  # Heartbeats may have come before.
        found.append(await anext(watching))
    assert found[-1].snapshot is not None and found[-1].snapshot.version == 2
    # What was taken before the watch began is kept no longer; what was told since still is, as
    # nobody knows yet whether it arrived.
    assert [one.sequence for one in house.layers.told if one.agent == "ada"] == [2, 3]
    house.coordinator.end_watches()
    with pytest.raises(errors.UnavailableError, match="stops"):
        await anext(watching)


async def test_watch_is_refused_when_the_agent_is_somebody_elses(house: House) -> None:
    await house.join("ada", "token:north")
    with pytest.raises(errors.ForbiddenError):
        await anext(house.coordinator.watch({"ada": 0}, "token:south"))
    assert (await anext(house.coordinator.watch({}, "token:south"))).snapshot is not None


async def test_ticks_are_made_by_the_timer_only_when_there_is_something_to_do(
    tmp_path: pathlib.Path,
) -> None:
    house = House(tmp_path, tick_s=0.01)
    running = asyncio.create_task(house.coordinator.run())
    await house.join()
    house.submit()
    await until(lambda: house.layers.ticks == 1)
    await asyncio.sleep(0.1)  # Ten times the timer: nothing was left to do.
    assert house.layers.ticks == 1
    house.layers.work = True
    await until(lambda: house.layers.ticks >= 3)
    await house.coordinator.close()
    await running
    assert house.layers.closed


async def test_timer_goes_on_when_a_tick_failed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_FAILED_PAUSE_S", 0.01)
    house = House(tmp_path, tick_s=0.01)
    await house.join()
    house.layers.fail = errors.OverloadedError("no room on disk")
    house.submit()
    running = asyncio.create_task(house.coordinator.run())
    await until(lambda: house.layers.ticks == 1)
    assert house.coordinator.failed_ticks == 1
    await house.coordinator.close()
    await running


async def test_snapshot_is_published_later_when_the_disk_was_full_after_the_tick(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_FAILED_PAUSE_S", 0.01)
    house = House(tmp_path, tick_s=0.01)
    await house.join()
    watching = house.coordinator.watch({"ada": 0}, "")
    assert (await anext(watching)).snapshot is not None
    folder = tmp_path / "snapshots"
    shutil.rmtree(folder)
    folder.write_text("no folder: nothing can be written here")
    house.submit()
    running = asyncio.create_task(house.coordinator.run())
    await until(lambda: house.coordinator.failed_ticks >= 1)
    # The tick itself was committed.
    assert house.layers.ticks == 1 and house.coordinator.waiting == 0
    folder.unlink()
    async with asyncio.timeout(30):
        while (heard := await anext(watching)).snapshot is None:
            pass
    assert heard.snapshot.version == 1 and house.layers.ticks == 1
    await house.coordinator.close()
    await running


async def test_private_layers_can_not_be_frozen_here(house: House) -> None:
    await house.join()
    await house.coordinator.set_frozen(levels.Level.SWARM, True)
    assert house.layers.frozen == {levels.Level.SWARM}
    with pytest.raises(errors.InvalidInputError, match="agent's own"):
        await house.coordinator.set_frozen(levels.Level.AGENT, True)


async def test_going_back_makes_a_new_version_and_is_done_once_for_a_key(house: House) -> None:
    await house.join()
    await house.coordinator.tick()
    await house.coordinator.roll_back(0, "key")
    await house.coordinator.roll_back(0, "key")
    newest = house.coordinator.newest
    assert newest is not None and newest.version == 2
    with pytest.raises(errors.NotFoundError):
        await house.coordinator.roll_back(99)


async def test_what_waited_before_a_restart_counts_after_it(tmp_path: pathlib.Path) -> None:
    first = House(tmp_path)
    await first.join()
    kept = [fake_layers.submission("ada", sequence) for sequence in (1, 2)]
    await first.coordinator.close()

    def make(frame: wire.Frame) -> Any:
        layers = fake_layers.FakeLayers(frame)
        for one in kept:
            layers.submit(one)
        return layers

    second = House(tmp_path)
    second.coordinator._make = make
    await second.coordinator.open()
    with pytest.raises(errors.OverloadedError, match="next tick"):
        second.submit("ada", 3)
    await second.coordinator.tick()
    assert second.submit("ada", 3)
    await second.coordinator.close()


async def test_status_shows_ones_own_agents_alone_when_an_owner_asks(house: House) -> None:
    assert status.of(house.coordinator).agents == ()
    await house.join("ada", "tenant:north")
    await house.join("bob", "tenant:south")
    house.submit("ada", 1, "tenant:north")
    seen = status.of(house.coordinator, "tenant:north")
    [ada] = seen.agents
    assert (ada.member.agent, ada.last_sequence, ada.activity) == (
        "ada",
        1,
        coordinator.Activity(taken=1, refused=0, seen_at_ms=2000),
    )
    assert seen.waiting == 1 and seen.modules == 2 and seen.base_fingerprint == "f" * 64
    assert [one.member.agent for one in status.of(house.coordinator).agents] == ["ada", "bob"]


async def test_join_is_refused_once_the_service_stops(house: House) -> None:
    house.coordinator.end_watches()
    with pytest.raises(errors.UnavailableError, match="stops"):
        await house.join()
    with contextlib.suppress(errors.UnavailableError):
        house.submit()
    assert not house.made
