"""`CardStore`: commit, find, alias and watch, over the blobs, the catalogue and the revision feed.

The domain of the control plane: knows neither protobuf nor Flight. One thread alone writes; what
a commit does there is `commits`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from services.card_store import blobs, commits, records, revisions
from services.card_store.catalogue import catalogue
from shared import errors
from shared.cards import manifest as manifests

T = TypeVar("T")


class CardStore:
    """One store's control; its methods do not block the event loop."""

    def __init__(
        self,
        files: blobs.BlobStore,
        cards: catalogue.Catalogue,
        feed: revisions.RevisionFeed,
        clock_ms: Callable[[], int],
        flight_address: Callable[[], str],
        verify: commits.Verify | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Takes everything that it works on.

        Args:
            files: uploaded and committed files.
            cards: the catalogue, opened for writing.
            feed: told about every change.
            clock_ms: Unix time in milliseconds.
            flight_address: where the data plane listens now.
            verify: looks at the signature of every card before it is published; None accepts all.
            clock_us: Unix time in microseconds.
        """
        self._cards, self._feed = cards, feed
        self._verify = verify or (lambda record: "")
        self._commits = commits.Commits(files, cards, clock_ms, self._verify)
        self._clock_us = clock_us
        self._flight_address = flight_address
        # One thread for all that writes: changes reach the feed in the order of the log.
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "card-store-writer")

    async def commit(
        self,
        kind: str,
        digest: str,
        size_bytes: int = 0,
        signature_json: str = "",
        tenants: Sequence[str] = (),
        accept: commits.Accept | None = None,
        traceparent: str = "",
    ) -> records.Commit:
        """Makes an uploaded file part of the store.

        The digest is the idempotency key: a second commit returns the first.

        Args:
            kind: `card`, `dataset` or `snapshot`.
            digest: SHA-256 of the uploaded file in lower-case hex.
            size_bytes: its size, checked where it is not 0.
            signature_json: DSSE envelope over a card's digest.
            tenants: who may see a card; empty: everybody.
            accept: may refuse a new card for the versions of its name that are there.
            traceparent: of the trace that a card is committed in.

        Raises:
            errors.InvalidInputError: kind, digest, a tenant's name, or the file's content
                (CardFormatError).
            errors.ForbiddenError: by `accept`.
            errors.UntrustedError: the card's signature is not one to trust.
            errors.PreconditionError: the card was deleted or revoked before.
            errors.NotFoundError: nothing was uploaded with that digest.
            errors.IntegrityError: the file's size or digest is another.
            errors.AlreadyExistsError: the card's name has that version with another digest.
        """
        if kind not in commits.KINDS:
            raise errors.InvalidInputError(
                f"ticket kind {kind!r} is not one of {list(commits.KINDS)}"
            )
        if not manifests.is_digest(digest):
            raise errors.InvalidInputError(
                f"ticket digest {digest[:80]!r} is not a SHA-256 in lower-case hex"
            )
        if kind != "card":
            return await self._write(lambda: self._commits.table(kind, digest, size_bytes))
        for tenant in tenants:
            if not re.fullmatch(manifests.NAME_PATTERN, tenant):
                raise errors.InvalidInputError(
                    f"tenant {tenant[:80]!r}: expected 1 to 63 lower-case letters, digits, dashes"
                )
        whose = commits.Whose(signature_json, tuple(sorted(set(tenants))), traceparent)
        return await self._publish(lambda: self._commits.card(digest, size_bytes, whose, accept))

    async def check_mirrored(self, record: records.CardRecord, signers: Sequence[str]) -> None:
        """Raises UntrustedError for a peer's card whose signer is not among those to be taken."""
        signer = await asyncio.to_thread(self._verify, record)
        if signers and signer not in signers:
            raise errors.UntrustedError(
                f"card {record.name}: its signer {signer or 'nobody'} is not in "
                "federation.mirror.signers"
            )

    async def add_mirrored(self, record: records.CardRecord, giver: str) -> records.Commit:
        """Takes over a peer's card, whose file is staged unless it is `remote`.

        Args:
            record: with its origin.
            giver: id of that peer.

        Raises:
            errors.SkillmeshError: as `commit`.
        """
        return await self._publish(lambda: self._commits.mirrored(record, giver))

    async def arrived(self, record: records.CardRecord) -> records.CardRecord:
        """Notes that the staged file of a remote card is here now."""
        return await self._write(lambda: self._commits.arrived(record))

    async def set_alias(
        self, name: str, alias: str, digest: str, idempotency_key: str
    ) -> records.CardRecord:
        """Points an alias of a card's name to one of its digests; see `Aliases.set`."""
        return await self._move(
            alias, lambda: self._cards.aliases.set(name, alias, digest, idempotency_key)
        )

    async def roll_back(self, name: str, alias: str, idempotency_key: str) -> records.CardRecord:
        """Moves an alias to where it pointed before; see `Aliases.roll_back`."""
        return await self._move(
            alias, lambda: self._cards.aliases.roll_back(name, alias, idempotency_key)
        )

    async def alias_moves(self, name: str, alias: str) -> list[records.PastMove]:
        """An alias's history, newest first."""
        return await asyncio.to_thread(self._cards.aliases.history, name, alias)

    async def delete(self, digest: str) -> records.Retired:
        """Takes a card out of service; see `Retirement.delete`."""
        return await self._retire(lambda: self._cards.retirement.delete(digest))

    async def revoke_card(self, digest: str) -> records.Retired:
        """Declares a card not to be trusted; see `Retirement.revoke_card`."""
        return await self._retire(lambda: self._cards.retirement.revoke_card(digest))

    async def revoke_key(self, key_id: str, reason: str) -> records.Retired:
        """Declares all cards of a key not to be trusted; see `Retirement.revoke_key`."""
        return await self._retire(lambda: self._cards.retirement.revoke_key(key_id, reason))

    async def key_origins(self, key_id: str) -> set[str]:
        """Where cards of a key were committed first; see `Retirement.origins`."""
        if not key_id:  # Unsigned cards are nobody's.
            return set()
        return await asyncio.to_thread(self._cards.retirement.origins, key_id)

    async def compact(self, keep_lines: int) -> int:
        """Drops all but the newest lines of the log; see `Catalogue.compact`."""
        return await self._write(lambda: self._cards.compact(keep_lines))

    async def get(self, reference: str) -> records.CardRecord:
        """The card behind `name`, `name@digest`, `name@alias` or a bare digest."""
        return await asyncio.to_thread(self._cards.get, reference)

    async def list_cards(self, query: records.Query) -> records.Listing:
        """The cards that a query asks for."""
        return await asyncio.to_thread(self._cards.list_cards, query)

    async def watch(self, from_revision: int) -> AsyncGenerator[records.Change, None]:
        """Every change after a revision and heartbeats; see `RevisionFeed.watch`.

        Raises:
            errors.InvalidInputError: the revision is negative.
            errors.PreconditionError: this store has not come so far: it is another one.
            errors.RevisionTooOldError: the log no longer reaches back so far; list again.
            errors.UnavailableError: the store stops; watch again.
        """
        if from_revision < 0:
            raise errors.InvalidInputError(f"from_revision {from_revision} is negative")
        head = await asyncio.to_thread(self._cards.head)
        if from_revision > head:
            raise errors.PreconditionError(
                f"from_revision {from_revision} is ahead of this store's log, which ends at "
                f"{head}: it is another store than before; list its cards and watch from there"
            )
        # Closed by hand, so that a watcher who leaves is forgotten at once.
        async with contextlib.aclosing(self._feed.watch(from_revision)) as changes:
            async for change in changes:
                yield change

    async def status(self) -> records.Status:
        """The store's condition."""
        store_id, totals = await asyncio.to_thread(
            lambda: (self._cards.store_id(), self._cards.totals())
        )
        return records.Status(store_id, totals, self._flight_address(), self._feed.watchers)

    async def exclusively(self, work: Callable[[], T]) -> T:
        """Runs a short piece of work, which may block, while nothing is committed or moved."""
        return await self._write(work)

    def close(self) -> None:
        """Waits for the write under way; blocks."""
        self._writer.shutdown(wait=True, cancel_futures=True)

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def _publish(self, work: Callable[[], records.Commit]) -> records.Commit:
        loop = asyncio.get_running_loop()

        def published() -> records.Commit:
            commit = work()
            if commit.created:
                kind = records.ChangeKind.CARD_PUBLISHED
                self._tell(loop, records.Change(kind, commit.revision, commit.record))
            return commit

        return await self._write(published)

    async def _move(self, alias: str, work: Callable[[], records.AliasMove]) -> records.CardRecord:
        loop = asyncio.get_running_loop()

        def moved() -> records.CardRecord:
            move = work()
            if move.moved:
                kind = records.ChangeKind.ALIAS_MOVED
                self._tell(loop, records.Change(kind, move.revision, move.record, alias))
            return move.record

        return await self._write(moved)

    async def _retire(self, work: Callable[[], records.Retired]) -> records.Retired:
        loop = asyncio.get_running_loop()

        def retired() -> records.Retired:
            found = work()
            for change in found.changes:
                self._tell(loop, change)
            return found

        return await self._write(retired)

    def _tell(self, loop: asyncio.AbstractEventLoop, change: records.Change) -> None:
        # From the writing thread, not after the await: the caller may have given up by then, and
        # the change would stay unheard.
        told = dataclasses.replace(change, at_us=self._clock_us())
        loop.call_soon_threadsafe(self._feed.publish, told)
