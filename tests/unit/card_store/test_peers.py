"""How peers are found and followed, with stand-ins of the peers, of zeroconf and of the mirror."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from services.card_store import peers, records
from services.card_store.catalogue import catalogue, copies, schema
from shared import discovery, errors
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import server as rpc_server
from shared.rpc import watch

PEER = "peer"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


class FakePeer(cards_pb2_grpc.CardStoreServicer):
    """A store with a log that goes to `revision`."""

    def __init__(self, store_id: str = PEER, revision: int = 1) -> None:
        self.store_id, self.revision = store_id, revision
        self.asked, self.watched_from = 0, list[int]()
        self.watching = self.beats = 0
        self.address = ""
        self.server: rpc_server.Server | None = None

    async def GetStoreStatus(self, request: Any, context: Any) -> cards_pb2.StoreStatus:
        self.asked += 1
        return cards_pb2.StoreStatus(
            store_id=self.store_id, revision=self.revision, flight_address="127.0.0.1:1"
        )

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[cards_pb2.Change]:
        self.watched_from.append(request.from_revision)
        self.watching += 1
        try:
            seen = request.from_revision
            for seen in range(request.from_revision + 1, self.revision + 1):
                yield cards_pb2.Change(kind=cards_pb2.CARD_PUBLISHED, revision=seen)
            while self.server is not None:
                self.beats += 1
                yield cards_pb2.Change(kind=cards_pb2.HEARTBEAT, revision=seen)
                await asyncio.sleep(0.02)
        finally:
            self.watching -= 1

    async def stop(self) -> None:
        # First those that watch, or the server waits for them.
        server, self.server = self.server, None
        if server is not None:
            await server.stop()


class FakeMirror:
    """Keeps what it was told; `failures` of a revision are raised first."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.failures: dict[int, list[Exception]] = {}
        self.now_s = 0.0

    async def take(self, change: watch.Change, peer_id: str, flight: str) -> bool:
        self.now_s += 0.01
        if failures := self.failures.get(change.revision):
            raise failures.pop(0)
        self.applied.append(change.revision)
        return True

    def close(self) -> None:
        pass

    async def until_applied(self, revision: int) -> None:
        await until(lambda: revision in self.applied)


class CountingCopies(copies.Copies):
    """Counts what it writes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.written: list[records.PeerCursor] = []

    def remember(self, store_id: str, cursor: records.PeerCursor, held: Mapping[str, bool]) -> None:
        super().remember(store_id, cursor, held)
        self.written.append(cursor)


class FakeBrowser:
    """Hears what a test tells."""

    def __init__(self) -> None:
        self._stores: list[discovery.StoreAddress] = []
        self._news = asyncio.Event()

    def tell(self, *found: FakePeer) -> None:
        self._stores = [discovery.StoreAddress(one.store_id, one.address) for one in found]
        self._news.set()

    def stores(self) -> list[discovery.StoreAddress]:
        return self._stores

    async def changed(self) -> None:
        await self._news.wait()
        self._news.clear()

    @contextlib.asynccontextmanager
    async def browsing(self, *unused: Any) -> AsyncIterator[FakeBrowser]:
        yield self


class House:
    """A store's peers and all that they touch."""

    def __init__(self, database: pathlib.Path) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._engine = schema.open_database(f"sqlite:///{database}")
        cards = catalogue.Catalogue(self._engine)
        self._stack.callback(cards.close)
        cards.migrate()
        self.copies = CountingCopies(cards._database)
        self.browser, self.mirror = FakeBrowser(), FakeMirror()
        self.peers: peers.Peers

    async def serve(self, peer: FakePeer) -> None:
        def add(grpc_server: Any) -> str:
            cards_pb2_grpc.add_CardStoreServicer_to_server(peer, grpc_server)
            return "skillmesh.v1.CardStore"

        peer.server = rpc_server.Server([add], "127.0.0.1:0")
        await peer.server.start()
        self._stack.push_async_callback(peer.stop)
        peer.address = f"127.0.0.1:{peer.server.port}"

    def start(self, *listed: str) -> None:
        settings = config.Settings(federation=config.Federation(enabled=True, peers=listed))
        self.peers = peers.Peers(
            settings,
            "me",
            self.copies,
            self.mirror,  # type: ignore[arg-type]
            browse=self.browser.browsing,  # type: ignore[arg-type]
            clock=lambda: self.mirror.now_s,
        )
        self._stack.push_async_callback(self.peers.stop)
        self.peers.start()

    async def until_lines(self, *addresses: str) -> None:
        """Until exactly these are followed, and alive."""
        alive = [(address, True) for address in addresses]
        await until(lambda: [(o.control, o.connected) for o in self.peers.lines()] == alive)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def house(tmp_path: pathlib.Path) -> AsyncIterator[House]:
    opened = House(tmp_path / "c.db")
    yield opened
    await opened.close()


async def test_cursor_is_written_twice_a_second_and_at_the_end_when_much_comes(
    house: House,
) -> None:
    peer = FakePeer(revision=300)
    await house.serve(peer)
    house.start(peer.address)
    await until(lambda: 300 in [cursor.revision for cursor in house.copies.written])
    assert house.mirror.applied == list(range(1, 301))
    # At the beginning, six times in three seconds, and when nothing more came.
    revisions = [cursor.revision for cursor in house.copies.written]
    assert revisions == sorted(set(revisions)) and len(revisions) <= 8
    assert {cursor.flight for cursor in house.copies.written} == {"127.0.0.1:1"}
    await house.peers.stop()
    assert house.copies.peers() == {PEER: records.PeerCursor(peer.address, 300)}


async def test_peer_is_followed_where_it_is_now_when_its_address_changes(house: House) -> None:
    before, after = FakePeer(revision=5), FakePeer(revision=7)
    await house.serve(before), await house.serve(after)
    house.start()
    house.browser.tell(before)
    await house.mirror.until_applied(5)
    # Its old word may still be heard.
    house.browser.tell(before, after)
    await house.until_lines(after.address)
    await house.mirror.until_applied(7)
    await until(lambda: not before.watching)
    assert (before.watched_from, after.watched_from) == ([0], [5])
    assert house.mirror.applied == list(range(1, 8))


async def test_peer_is_followed_once_when_it_is_listed_and_heard_elsewhere(house: House) -> None:
    listed, heard = FakePeer(revision=2), FakePeer(revision=4)
    await house.serve(listed), await house.serve(heard)
    house.start(listed.address)
    await house.mirror.until_applied(2)
    house.browser.tell(heard)
    await until(lambda: heard.asked)
    beats = listed.beats
    await until(lambda: listed.beats >= beats + 10)  # It would have begun to watch by then.
    assert heard.watched_from == []
    await house.until_lines(listed.address)
    await listed.stop()
    await house.until_lines(heard.address)
    await house.mirror.until_applied(4)
    assert heard.watched_from == [2] and house.mirror.applied == [1, 2, 3, 4]


async def test_peer_is_given_up_and_its_cursor_kept_when_it_is_gone(house: House) -> None:
    peer = FakePeer(revision=3)
    await house.serve(peer)
    house.start()
    house.browser.tell(peer)
    await house.mirror.until_applied(3)
    # Not announced any more: zeroconf is a hint, and the peer is there.
    house.browser.tell()
    await house.until_lines(peer.address)
    await peer.stop()
    await house.until_lines()
    assert house.copies.peers() == {PEER: records.PeerCursor(peer.address, 3)}
    assert house.peers._tasks == {}
    again = FakePeer(revision=4)
    await house.serve(again)
    house.browser.tell(again)
    await house.mirror.until_applied(4)
    assert again.watched_from == [3]


async def test_peer_is_given_up_when_it_is_gone_before_it_answers(house: House) -> None:
    silent = FakePeer()
    await house.serve(silent)
    await silent.stop()
    house.start()
    house.browser.tell(silent)
    await until(lambda: house.peers._tasks)
    house.browser.tell()
    await until(lambda: not house.peers._tasks)
    assert house.peers.lines() == []


async def test_lines_go_on_when_one_can_never_be_applied(house: House) -> None:
    peer = FakePeer(revision=5)
    hopeless = [errors.IntegrityError("wrong bytes") for _ in range(10)]
    away = [errors.UnavailableError("away") for _ in range(4)]
    house.mirror.failures = {2: hopeless, 4: list(away)}
    await house.serve(peer)
    house.start(peer.address)
    await house.mirror.until_applied(5)
    # Three attempts at the one, as many as it takes at the other.
    assert house.mirror.applied == [1, 3, 4, 5]
    assert len(hopeless) == 7 and not house.mirror.failures[4]


async def test_nothing_is_followed_when_it_is_this_very_store(house: House) -> None:
    me, peer = FakePeer("me"), FakePeer()
    await house.serve(me), await house.serve(peer)
    house.start(me.address, peer.address)
    await house.until_lines(peer.address)
    await until(lambda: bool(me.asked))
    assert me.watched_from == []
