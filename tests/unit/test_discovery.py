"""Stores are found over real multicast DNS on loopback, and nothing stays open afterwards."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

import pytest

from shared import discovery, multicast
from shared import settings as config

LOOPBACK = multicast.Address("127.0.0.1", 8)


def _settings(cluster: str, mesh: str = "", **more: Any) -> config.Settings:
    federation = config.Federation(enabled=True, mesh=mesh) if mesh else config.Federation()
    return config.Settings(
        cluster=config.Cluster(name=cluster),
        federation=federation,
        discovery=config.Discovery(**more),
    )


@pytest.fixture
def name() -> str:
    """Of a cluster and mesh that no other test on this machine has."""
    return f"test-{uuid.uuid4().hex[:8]}"


async def test_store_of_the_own_cluster_is_found_when_another_one_is_announced_too(name):
    stranger = discovery.Announcer(_settings("stranger"), "bbb", 2, "v1")
    own = discovery.Announcer(_settings(name, name), "aaa", 1, "v1", flight_port=7)
    await asyncio.gather(stranger.start(), own.start())
    found = await discovery.find_stores(_settings(name), wait_s=30.0)
    assert found == [discovery.StoreAddress("aaa", "127.0.0.1:1", name, name)]
    await asyncio.gather(stranger.stop(), own.stop())


async def test_default_address_is_tried_when_nobody_of_the_cluster_is_heard(name):
    stranger = discovery.Announcer(_settings("stranger"), "bbb", 2, "v1")
    await stranger.start()
    found = await discovery.find_stores(_settings(name), wait_s=0.5)
    assert [store.control for store in found] == ["127.0.0.1:7405"]
    await stranger.stop()


async def test_browser_hears_stores_come_and_go_when_they_are_of_its_mesh(name):
    stores = [
        discovery.Announcer(_settings(f"cluster-{at}", name), f"store-{at}", at, "v1")
        for at in (1, 2)
    ]
    other = discovery.Announcer(_settings("cluster-3", "another"), "store-3", 3, "v1")
    settings = _settings(name, name)
    async with discovery.browsing(settings, lambda store: store.mesh == name) as browser:
        await asyncio.gather(*(one.start() for one in (*stores, other)))
        while len(browser.stores()) < 2:
            await browser.changed()
        assert {store.store_id for store in browser.stores()} == {"store-1", "store-2"}
        await stores[0].stop()
        while len(browser.stores()) > 1:
            await browser.changed()
        assert [store.store_id for store in browser.stores()] == ["store-2"]
    await asyncio.gather(stores[1].stop(), other.stop())


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
async def test_no_socket_stays_open_when_it_is_cancelled_while_it_starts(name, turns):
    before = set(os.listdir("/proc/self/fd"))
    tasks = [
        asyncio.create_task(discovery.Announcer(_settings(name), "aaa", 1, "v1").start()),
        asyncio.create_task(discovery.find_stores(_settings(name))),
    ]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # Transports close at the loop's next turn.
    assert set(os.listdir("/proc/self/fd")) == before


def test_no_socket_stays_open_when_the_loop_ends_while_it_starts(name):
    before = set(os.listdir("/proc/self/fd"))

    async def interrupted() -> None:
        unfinished = discovery.Announcer(_settings(name), "aaa", 1, "v1")
        tasks.append(asyncio.create_task(unfinished.start()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(interrupted())
    assert tasks[0].cancelled()
    assert set(os.listdir("/proc/self/fd")) == before


async def test_addresses_are_told_when_they_change():
    lan = multicast.Address("10.1.0.5", 24)
    seen = iter([frozenset({LOOPBACK}), frozenset({LOOPBACK}), frozenset({LOOPBACK, lan})])
    last: list[frozenset[multicast.Address]] = []
    told: asyncio.Queue[frozenset[multicast.Address]] = asyncio.Queue()

    def read() -> frozenset[multicast.Address]:
        last[:] = [next(seen, *last[-1:])]
        return last[0]

    async with multicast.opened(("127.0.0.1",), told.put_nowait, 0.001, read):
        assert await told.get() == {LOOPBACK, lan}
        assert told.empty()


async def test_store_announces_its_new_address_when_addresses_change(name, monkeypatch):
    def everywhere(host: str, own: Any) -> list[str]:
        return [address.ip for address in own]

    current = [frozenset({LOOPBACK})]
    monkeypatch.setattr(multicast, "addresses", lambda: current[0])
    monkeypatch.setattr(discovery, "_announced", everywhere)
    announcer = discovery.Announcer(_settings(name, name), "aaa", 1, "v1", poll_s=0.01)
    async with discovery.browsing(_settings(name), lambda store: store.cluster == name) as browser:
        await announcer.start()
        await browser.changed()
        assert browser.stores()[0].control == "127.0.0.1:1"
        current[0] = frozenset({multicast.Address("127.0.0.2", 8)})
        await browser.changed()
        assert browser.stores()[0].control == "127.0.0.2:1"
        await announcer.stop()


def test_address_in_a_common_network_is_preferred_when_a_store_has_several():
    own = [LOOPBACK, multicast.Address("192.168.7.4", 24), multicast.Address("10.0.0.4", 8)]
    assert multicast.nearest(["172.17.0.1", "192.168.7.9", "127.0.0.1"], own) == "192.168.7.9"
    assert multicast.nearest(["172.17.0.1", "127.0.0.1"], own) == "127.0.0.1"
    assert multicast.nearest(["172.17.0.1", "172.18.0.1"], own) == "172.17.0.1"


def test_data_plane_is_where_the_store_was_reached_when_it_listens_everywhere():
    assert discovery.reachable("0.0.0.0:7406", "10.0.0.9:7405") == "10.0.0.9:7406"
    assert discovery.reachable("10.0.0.8:7406", "10.0.0.9:7405") == "10.0.0.8:7406"
    assert discovery.reachable("store.example:7406", "10.0.0.9:7405") == "store.example:7406"
