"""Finds the stores of the mesh and follows the log of each, from where it was left.

Each is followed once, wherever it is: at an address of the list, or where zeroconf hears of it now.
How far is kept in the catalogue: a store that was killed goes on where it was. What a line means is
`mirror`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable

import structlog
import zeroconf

from services.card_store import mirror, records
from services.card_store.catalogue import copies
from shared import discovery, errors
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client, watch
from shared.security import protection as protections

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_STATUS_DEADLINE_S = 5.0
_WRITE_EVERY_S = 0.5
"""A cursor is written so often at most: what is read again after a crash does no harm."""
_ATTEMPTS = 3
_HOPELESS = (errors.NotFoundError, errors.IntegrityError, errors.InvalidInputError)
"""What is still wrong at the last attempt stays so, and the lines behind it must not wait."""
Browse = Callable[
    [config.Settings, Callable[[discovery.StoreAddress], bool]],
    contextlib.AbstractAsyncContextManager[discovery.StoreBrowser],
]
_log = structlog.get_logger(__name__)


@dataclasses.dataclass
class Line:
    """What is known of one peer."""

    control: str
    is_wanted: bool = True
    """Whether it is looked for again after a loss."""
    store_id: str = ""
    """Empty until it is followed."""
    flight: str = ""
    revision: int = 0
    connected: bool = False
    cards: int = 0
    held: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Digest to whether the peer has the bytes, as far as it is not written yet."""
    written: tuple[int, float] = (0, 0.0)
    """The revision that was written last, and when."""
    attempts: int = 0
    """How often the line of the log that is next could not be applied."""


class Peers:
    """Every line of one store; lives on one event loop."""

    def __init__(
        self,
        settings: config.Settings,
        store_id: str,
        known: copies.Copies,
        mirroring: mirror.Mirror,
        protection: protections.Protection = protections.OPEN,
        browse: Browse = discovery.browsing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes everything that it works on.

        Args:
            settings: the mesh, the static list, how to look for others.
            store_id: the store's own identity.
            known: keeps how far each peer was followed.
            mirroring: applies the lines.
            protection: what is shown to peers and asked of them.
            browse: looks for others.
            clock: seconds, monotonic.
        """
        self._protection = protection
        self._settings, self._store_id = settings, store_id
        self._copies, self._mirror = known, mirroring
        self._browsing, self._clock = browse, clock
        self._lines: dict[str, Line] = {}
        """By address where that is on the list, else by the store's id."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._claims: dict[str, asyncio.Lock] = {}
        """Held by the line that follows a store."""
        self._browse: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look and to follow."""
        for control in self._settings.federation.peers:
            self._follow(control, control)
        if self._settings.discovery.zeroconf:
            self._browse = asyncio.create_task(self._browsed())

    async def stop(self) -> None:
        """Follows no longer."""
        tasks = [*self._tasks.values(), *filter(None, [self._browse])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._mirror.close)

    def lines(self) -> list[Line]:
        """The peers that were reached, by address."""
        reached = (line for line in self._lines.values() if line.store_id)
        return sorted(reached, key=lambda line: line.control)

    async def bring(self, record: records.CardRecord) -> None:
        """Fetches the bytes of a card that is only on record, its origin asked first.

        Raises:
            errors.UnavailableError: no peer that is connected has it.
        """
        reason = "no peer is connected"
        for line in sorted(self.lines(), key=lambda line: line.store_id != record.origin):
            if line.connected:
                try:
                    return await self._mirror.bring(record.digest, line.flight)
                except errors.SkillmeshError as error:
                    reason = str(error)
        raise errors.UnavailableError(
            f"card {record.name}@{record.digest} is at a peer, and can't be fetched now: {reason}"
        )

    async def _browsed(self) -> None:
        mesh = self._settings.federation.mesh
        while True:
            try:
                async with self._browsing(
                    self._settings,
                    lambda store: store.mesh == mesh and store.store_id != self._store_id,
                ) as browser:
                    heard: dict[str, str] = {}
                    while True:
                        await browser.changed()
                        # Of a store that was killed and came back, the later word counts.
                        now = {store.store_id: store.control for store in browser.stores()}
                        for store_id in heard.keys() - now.keys():
                            await self._gone(store_id)
                        for store_id, control in now.items():
                            await self._heard(store_id, control)
                        heard = now
            except (OSError, zeroconf.Error) as error:
                _log.warning("peers can't be looked for", reason=str(error))
            await asyncio.sleep(_LONGEST_PAUSE_S)

    async def _heard(self, store_id: str, control: str) -> None:
        line = self._lines.get(store_id)
        if line is not None and line.control == control:
            line.is_wanted = True
            return
        await self._end(store_id)  # It is elsewhere now.
        if control not in self._settings.federation.peers:
            self._follow(store_id, control)

    async def _gone(self, store_id: str) -> None:
        """A store that is no longer announced is given up, unless it is there all the same."""
        line = self._lines.get(store_id)
        if line is not None:
            line.is_wanted = False
            if not line.connected:
                await self._end(store_id)

    async def _end(self, key: str) -> None:
        if (task := self._tasks.get(key)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # Only now: whoever stops all of them waits for this one, too.
        self._lines.pop(key, None)
        self._tasks.pop(key, None)

    def _follow(self, key: str, control: str) -> None:
        line = self._lines[key] = Line(control)
        self._tasks[key] = asyncio.create_task(self._run(key, line))

    async def _run(self, key: str, line: Line) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._once(line)
            except errors.SkillmeshError as error:
                _log.info("peer lost", peer=line.control, reason=str(error))
            except Exception:
                # One peer's nonsense must not end the others' lines.
                _log.exception("peer lost", peer=line.control)
            pause_s = _FIRST_PAUSE_S if line.connected else min(pause_s * 2, _LONGEST_PAUSE_S)
            line.connected = False
            if not line.is_wanted:
                _log.info("peer given up", peer=line.control, store=line.store_id)
                del self._lines[key], self._tasks[key]
                return
            await asyncio.sleep(pause_s)

    async def _once(self, line: Line) -> None:
        async with client.channel(line.control, protection=self._protection) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            store_id = (await _status(stub)).store_id
            if store_id == self._store_id:
                await asyncio.Event().wait()  # This very store, on the list of its own mesh.
            # Another line may have it already, by another of its addresses.
            async with self._claims.setdefault(store_id, asyncio.Lock()):
                status = await _status(stub)
                if status.store_id == store_id:
                    self._take_over(line, status)
                    await self._begin(line, status)
                    try:
                        await self._read(line, stub, status.oldest_revision)
                    finally:
                        await self._write(line, flight="")

    def _take_over(self, line: Line, status: cards_pb2.StoreStatus) -> None:
        """Makes this line the one by which a store is known."""
        for other in self._lines.values():
            if other is not line and other.store_id == status.store_id:
                other.store_id, line.cards, other.cards = "", line.cards + other.cards, 0
        line.store_id = status.store_id
        line.flight = discovery.reachable(status.flight_address, line.control)

    async def _begin(self, line: Line, status: cards_pb2.StoreStatus) -> None:
        """Finds out where to go on."""
        cursor = (await asyncio.to_thread(self._copies.peers)).get(line.store_id)
        # One restored from a backup has come less far than what was seen of it.
        is_same = cursor is not None and cursor.revision <= status.revision
        line.revision = cursor.revision if cursor is not None and is_same else 0
        if line.revision == 0 or line.revision < status.oldest_revision:
            # All of it is told anew.
            await asyncio.to_thread(self._copies.forget_held, line.store_id)

    async def _read(
        self, line: Line, stub: cards_pb2_grpc.CardStoreStub, oldest_revision: int
    ) -> None:
        if line.revision < oldest_revision:
            cards, revision, keys = await watch.list_cards(stub, all_versions=True)
            published, revoked = watch.ChangeKind.CARD_PUBLISHED, watch.ChangeKind.KEY_REVOKED
            told = [watch.Change(published, 0, card) for card in cards]
            for known in told + [watch.Change(revoked, 0, None, key_id=key) for key in keys]:
                await self._apply(line, known)
                await self._write_if_due(line)
            line.revision = revision
        await self._write(line, line.flight)
        reading = watch.changes(stub, line.revision)
        async with contextlib.aclosing(reading):
            async for change in reading:
                line.connected = True
                if change is not None:
                    await self._apply(line, change)
                    line.revision = change.revision
                # A sign of life says that nothing follows at once.
                await self._write_if_due(line, is_quiet=change is None)

    async def _apply(self, line: Line, change: watch.Change) -> None:
        try:
            line.cards += await self._mirror.take(change, line.store_id, line.flight)
        except _HOPELESS as error:
            line.attempts += 1
            if line.attempts < _ATTEMPTS:
                raise
            _log.warning(
                "peer's line passed over",
                peer=line.control,
                revision=change.revision,
                reason=str(error),
            )
        line.attempts = 0
        if change.card is not None:
            is_held = change.card.state is watch.CardState.ACTIVE and not change.card.remote
            line.held[change.card.digest] = is_held

    async def _write_if_due(self, line: Line, is_quiet: bool = False) -> None:
        revision, at_s = line.written
        has_news = bool(line.held) or line.revision != revision
        if has_news and (is_quiet or self._clock() >= at_s + _WRITE_EVERY_S):
            await self._write(line, line.flight)

    async def _write(self, line: Line, flight: str) -> None:
        held, line.held = line.held, {}
        line.written = (line.revision, self._clock())
        cursor = records.PeerCursor(line.control, line.revision, flight)
        await asyncio.to_thread(self._copies.remember, line.store_id, cursor, held)


async def _status(stub: cards_pb2_grpc.CardStoreStub) -> cards_pb2.StoreStatus:
    request = cards_pb2.GetStoreStatusRequest()
    answer: cards_pb2.StoreStatus = await client.call(
        stub.GetStoreStatus, request, _STATUS_DEADLINE_S
    )
    return answer
