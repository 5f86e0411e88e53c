"""`Maintenance`: retention, garbage, the length of the log, and whether every file is what it was.

Runs by itself every so many hours, and whenever an operator asks. What goes is told to watchers
like any other deletion; a file goes only once no record needs it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
from collections.abc import AsyncGenerator, Callable

import structlog

from services.card_store import blobs, store
from services.card_store.catalogue import catalogue
from shared import errors, store_settings

_log = structlog.get_logger(__name__)
_HOUR_S, _DAY_MS = 3600.0, 24 * 3600 * 1000
_FIRST_AFTER_S = 600.0
_REMOVED_AT_ONCE = 100
_TOLD_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Retained:
    """What retention takes out of service."""

    cards: tuple[str, ...]
    """Digests of superseded versions."""
    datasets: tuple[str, ...]
    """Digests of datasets that no card in service was made of."""


@dataclasses.dataclass(frozen=True)
class Garbage:
    """Files that no record needs."""

    digests: tuple[str, ...]
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """How far a look at every file has come."""

    checked: int
    total: int
    size_bytes: int
    """Read so far."""
    digest: str = ""
    """A file that is not what it was; empty: nothing new was found."""
    fault: str = ""
    """What is wrong with it."""


class Maintenance:
    """The upkeep of one store."""

    def __init__(
        self,
        card_store: store.CardStore,
        files: blobs.BlobStore,
        cards: catalogue.Catalogue,
        policy: store_settings.CardStore,
        clock_ms: Callable[[], int],
    ) -> None:
        """Takes the store, its files and catalogue, what stays for how long, and Unix time."""
        self._store, self._files, self._cards = card_store, files, cards
        self._policy, self._clock_ms = policy, clock_ms

    async def run(self) -> None:
        """Does everything every `maintenance_hours`, for ever; ends at once where that is 0."""
        every_s = self._policy.maintenance_hours * _HOUR_S
        pause_s = min(_FIRST_AFTER_S, every_s)
        while every_s > 0:
            await asyncio.sleep(pause_s)
            pause_s = every_s
            try:
                retained = await self.apply_retention()
                garbage = await self.collect_garbage()
                oldest = await self._store.compact(self._policy.log_lines)
            except errors.SkillmeshError as error:
                _log.warning("maintenance broken off", reason=str(error))
                continue
            _log.info(
                "maintenance done",
                cards_deleted=len(retained.cards),
                datasets_dropped=len(retained.datasets),
                files_removed=len(garbage.digests),
                bytes_removed=garbage.size_bytes,
                oldest_revision=oldest,
            )

    async def apply_retention(self, dry_run: bool = False) -> Retained:
        """Deletes the versions, and drops the datasets, that the policy no longer keeps.

        Args:
            dry_run: only tells which.
        """
        policy, now_ms = self._policy.retention, self._clock_ms()
        upkeep = self._cards.upkeep
        superseded = await asyncio.to_thread(
            upkeep.superseded, policy.keep_versions, now_ms - round(policy.keep_days * _DAY_MS)
        )
        if not dry_run:
            for digest in superseded:
                await self._store.delete(digest)
        unused: list[str] = []
        if policy.datasets_days > 0:
            before_ms = now_ms - round(policy.datasets_days * _DAY_MS)
            unused = await asyncio.to_thread(upkeep.unused_datasets, before_ms)
        if not dry_run:
            await self._store.exclusively(lambda: upkeep.drop_datasets(unused))
        return Retained(tuple(superseded), tuple(unused))

    async def collect_garbage(self, dry_run: bool = False) -> Garbage:
        """Removes the files of cards out of service, of dropped datasets, and of broken commits.

        Args:
            dry_run: only tells which.
        """
        unneeded = await asyncio.to_thread(self._unneeded)
        if not dry_run:
            for at in range(0, len(unneeded), _REMOVED_AT_ONCE):
                some = unneeded[at : at + _REMOVED_AT_ONCE]
                await self._store.exclusively(functools.partial(self._remove, some))
        digests = tuple(file.digest for file in unneeded)
        return Garbage(digests, sum(file.size_bytes for file in unneeded))

    async def verify(self) -> AsyncGenerator[Inspection, None]:
        """Reads every file that must be here and compares it with its digest.

        Yields:
            Every file that is missing or changed, now and then how far it has come, and the end.
        """
        needed = await asyncio.to_thread(self._cards.upkeep.files)
        read = 0
        for checked, (digest, size_bytes) in enumerate(sorted(needed.items()), 1):
            fault, found_bytes = await asyncio.to_thread(self._inspect, digest, size_bytes)
            read += found_bytes
            if fault:
                # Deleted while the others were read: not needed any more.
                if await asyncio.to_thread(self._cards.holds, digest):
                    _log.error("committed file is damaged", digest=digest, fault=fault)
                    yield Inspection(checked, len(needed), read, digest, fault)
            elif checked % _TOLD_EVERY == 0:
                yield Inspection(checked, len(needed), read)
        yield Inspection(len(needed), len(needed), read)

    def _unneeded(self) -> list[blobs.StoredFile]:
        # The files first: what is committed between is among the needed ones.
        before_s = self._clock_ms() / 1000 - self._policy.garbage_hours * _HOUR_S
        old = [file for file in self._files.files() if file.modified_s < before_s]
        needed = self._cards.upkeep.files()
        return [file for file in old if file.digest not in needed]

    def _remove(self, some: list[blobs.StoredFile]) -> None:
        # Of several stores none commits meanwhile; one that is about to finds its file gone, and
        # puts it there again.
        with self._cards.transaction():
            for file in some:
                # Looked at again: it may have been committed since.
                if not self._cards.holds(file.digest):
                    self._files.remove(file.digest)

    def _inspect(self, digest: str, size_bytes: int) -> tuple[str, int]:
        """What is wrong with a file, empty for nothing, and how many bytes were read."""
        hasher, found_bytes = hashlib.sha256(), 0
        try:
            for chunk in self._files.chunks(digest):
                hasher.update(chunk)
                found_bytes += len(chunk)
        except errors.NotFoundError:
            return "it is missing", 0
        except errors.UnavailableError as error:
            return f"it can't be read: {error}", found_bytes
        if found_bytes != size_bytes:
            return f"it has {found_bytes} bytes instead of {size_bytes}", found_bytes
        if hasher.hexdigest() != digest:
            return f"its SHA-256 is {hasher.hexdigest()}", found_bytes
        return "", found_bytes
