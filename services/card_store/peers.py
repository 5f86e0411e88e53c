"""Finds the stores of the mesh and follows the log of each, from where it was left.

How far each peer was followed is kept in the catalogue: a store that was killed goes on where it
was. What a line means is `mirror`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import structlog
import zeroconf

from services.card_store import catalogue, mirror, records
from shared import discovery, errors
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client, watch
from shared.security import protection as protections

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_STATUS_DEADLINE_S = 5.0
_log = structlog.get_logger(__name__)


@dataclasses.dataclass
class Line:
    """What is known of one peer."""

    control: str
    store_id: str = ""
    flight: str = ""
    revision: int = 0
    connected: bool = False
    cards: int = 0


class Peers:
    """Every line of one store; lives on one event loop."""

    def __init__(
        self,
        settings: config.Settings,
        store_id: str,
        cards: catalogue.Catalogue,
        mirroring: mirror.Mirror,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Takes the catalogue with its cursors, what applies the lines, what peers are shown."""
        self._protection = protection
        self._settings, self._store_id = settings, store_id
        self._cards, self._mirror = cards, mirroring
        self._lines: dict[str, Line] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._browse: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look and to follow."""
        for control in self._settings.federation.peers:
            self._follow(control)
        if self._settings.discovery.zeroconf:
            self._browse = asyncio.create_task(self._browsed())

    async def stop(self) -> None:
        """Follows no longer."""
        tasks = [*self._tasks.values(), *filter(None, [self._browse])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def lines(self) -> list[Line]:
        """The peers that were reached, by address."""
        return [line for _, line in sorted(self._lines.items()) if line.store_id]

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
                async with discovery.browsing(
                    self._settings,
                    lambda store: store.mesh == mesh and store.store_id != self._store_id,
                ) as browser:
                    while True:
                        await browser.changed()
                        for store in browser.stores():
                            self._follow(store.control)
            except (OSError, zeroconf.Error) as error:
                _log.warning("peers can't be looked for", reason=str(error))
            await asyncio.sleep(_LONGEST_PAUSE_S)

    def _follow(self, control: str) -> None:
        if control not in self._tasks:
            line = self._lines[control] = Line(control)
            self._tasks[control] = asyncio.create_task(self._run(line))

    async def _run(self, line: Line) -> None:
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
            await asyncio.sleep(pause_s)

    async def _once(self, line: Line) -> None:
        async with client.channel(line.control, protection=self._protection) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            status = await client.call(
                stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest(), _STATUS_DEADLINE_S
            )
            if status.store_id == self._store_id:
                await asyncio.Event().wait()  # This very store, on the list of its own mesh.
            line.store_id = status.store_id
            line.flight = discovery.reachable(status.flight_address, line.control)
            cursors = await asyncio.to_thread(self._cards.peers)
            cursor = cursors.get(line.store_id)
            # One restored from a backup has come less far than what was seen of it.
            is_same = cursor is not None and cursor.revision <= status.revision
            line.revision = cursor.revision if cursor is not None and is_same else 0
            if line.revision < status.oldest_revision:
                known, revision = await watch.list_cards(stub, all_versions=True)
                for card in known:
                    kind = watch.ChangeKind.CARD_PUBLISHED
                    await self._apply(line, watch.Change(kind, 0, card))
                await self._remember(line, revision)
            reading = watch.changes(stub, line.revision)
            async with contextlib.aclosing(reading):
                async for change in reading:
                    line.connected = True
                    if change is not None:
                        await self._apply(line, change)
                        await self._remember(line, change.revision)

    async def _apply(self, line: Line, change: watch.Change) -> None:
        line.cards += await self._mirror.take(change, line.store_id, line.flight)

    async def _remember(self, line: Line, revision: int) -> None:
        line.revision = revision
        cursor = records.PeerCursor(line.control, revision)
        await asyncio.to_thread(self._cards.remember_peer, line.store_id, cursor)
