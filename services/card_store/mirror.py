"""Takes over what peers publish and withdraw, by policy and without loops.

A card that is known here, or that was first committed here, is never taken again: whatever way
round a mesh it comes, it stops at the second visit. Knows nothing about finding peers; see `peers`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures

import structlog

from services.card_store import blobs, records, store
from services.card_store.catalogue import copies
from shared import errors
from shared import settings as config
from shared.cards import manifest as manifests
from shared.flight import client as flight_client
from shared.rpc import watch
from shared.security import protection as protections

_FETCHES_AT_ONCE = 4
_SILENCE_S = 8.0
"""A peer that sends nothing of a card for so long is taken for lost."""
_LONGEST_FETCH_S = 600.0
"""At the full rate."""
_log = structlog.get_logger(__name__)


class Bandwidth:
    """One rate for all that is fetched; used from many threads."""

    def __init__(
        self,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Takes the rate, 0 for none; sleeps until `stop` by default."""
        self._stopped = threading.Event()
        self._bytes_per_s, self._clock = bytes_per_s, clock
        self._sleep = sleep or self._stopped.wait
        self._free_at_s = clock()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Ends what is under way."""
        self._stopped.set()

    def least_s(self, size_bytes: int) -> float:
        """How long so many bytes take at best."""
        return size_bytes / self._bytes_per_s if self._bytes_per_s > 0 else 0.0

    def limited(self, chunks: Iterable[memoryview]) -> Iterator[memoryview]:
        """The chunks, each once the rate allows it.

        Raises:
            errors.UnavailableError: it was stopped.
        """
        for chunk in chunks:
            if self._bytes_per_s > 0:
                with self._lock:
                    now_s = self._clock()
                    self._free_at_s = max(self._free_at_s, now_s)
                    self._free_at_s += self.least_s(len(chunk))
                    wait_s = self._free_at_s - now_s
                self._sleep(wait_s)
            if self._stopped.is_set():
                raise errors.UnavailableError("this store stops; what it fetched comes again")
            yield chunk


class Mirror:
    """One store's copying from its peers."""

    def __init__(
        self,
        card_store: store.CardStore,
        files: blobs.BlobStore,
        known: copies.Copies,
        store_id: str,
        policy: config.Mirror,
        bandwidth: Bandwidth,
        largest_bytes: int,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Takes everything that it works on.

        Args:
            card_store: gets the cards.
            files: gets their bytes.
            known: knows who gave which card.
            store_id: the store's own identity.
            policy: what is taken over.
            bandwidth: how fast.
            largest_bytes: of a card; larger ones are refused.
            protection: what is shown to peers and asked of them.
        """
        self._protection = protection
        self._store, self._files, self._store_id = card_store, files, store_id
        self._copies = known
        self._policy, self._bandwidth = policy, bandwidth
        self._largest_bytes = largest_bytes
        self._fetching: dict[str, asyncio.Lock] = {}
        # Threads of its own: a limited rate is waited for in them, and everything else of this
        # process must not wait as well.
        self._fetchers = futures.ThreadPoolExecutor(_FETCHES_AT_ONCE, "mirror")

    def close(self) -> None:
        """Ends what is being fetched; blocks."""
        self._bandwidth.stop()
        self._fetchers.shutdown(cancel_futures=True)

    async def take(self, change: watch.Change, peer_id: str, flight: str) -> bool:
        """Applies one line of a peer's log.

        Args:
            change: the line.
            peer_id: the peer's identity.
            flight: `host:port` of its data plane.

        Returns:
            Whether a card was taken over by it.

        Raises:
            errors.SkillmeshError: it could not be applied now; the same line is to come again.
        """
        if change.kind is watch.ChangeKind.KEY_REVOKED:
            await self._distrust(change.key_id, peer_id)
        elif (gone := change.retires) is not None:
            await self._withdraw(gone, peer_id)
        elif change.kind is watch.ChangeKind.CARD_PUBLISHED and change.card is not None:
            return await self._publish(change.card, peer_id, flight)
        return False

    async def bring(self, digest: str, flight: str) -> None:
        """Fetches the bytes of a card that is only on record here.

        Raises:
            errors.SkillmeshError: the peer can't be reached or does not have it.
        """
        async with self._fetching.setdefault(digest, asyncio.Lock()):
            record = await self._store.get(digest)
            if record.remote:
                await self._fetch(digest, record.size_bytes, flight)
                await self._store.arrived(record)

    async def _publish(self, card: watch.CardRecord, peer_id: str, flight: str) -> bool:
        origin = card.origin or peer_id
        if origin == self._store_id or card.state is not watch.CardState.ACTIVE:
            return False
        async with self._fetching.setdefault(card.digest, asyncio.Lock()):
            if await self._known(card.digest) is not None or not self._wanted(card):
                return False
            record = _record(card, origin, remote=self._policy.fetch == "on_use" or card.remote)
            try:
                self._check_size(card)
                await self._store.check_mirrored(record, self._policy.signers)
                if not record.remote:
                    await self._fetch(card.digest, card.size_bytes, flight)
                await self._store.add_mirrored(record, peer_id)
            except (
                errors.InvalidInputError,
                errors.PreconditionError,
                errors.AlreadyExistsError,
            ) as e:
                # It will be no better next time; the lines behind it must not wait for it.
                _log.warning("peer's card refused", card=card.name, peer=peer_id, reason=str(e))
                return False
            _log.info("card mirrored", card=card.name, digest=card.digest, remote=record.remote)
            return True

    def _check_size(self, card: watch.CardRecord) -> None:
        if card.size_bytes > self._largest_bytes:
            raise errors.InvalidInputError(
                f"{card.size_bytes} bytes are more than the {self._largest_bytes} that "
                "card_store.largest_upload_bytes allows"
            )

    async def _distrust(self, key_id: str, peer_id: str) -> None:
        """Revokes a key on a peer's word, if it is the peer's to revoke."""
        origins = await self._store.key_origins(key_id)
        # Whom this store trusts is decided here. A peer speaks for keys under which it published
        # cards that are here, and never for one under which this store published its own.
        if peer_id in origins and "" not in origins:
            await self._store.revoke_key(key_id, f"revoked by peer {peer_id}")
        else:
            _log.warning(
                "peer's revocation of a key left to the operator", key=key_id, peer=peer_id
            )

    async def _withdraw(self, card: watch.CardRecord, peer_id: str) -> None:
        known = await self._known(card.digest)
        if known is None or known.state is not records.CardState.ACTIVE:
            return
        is_of_origin = known.origin == peer_id
        if card.state is watch.CardState.REVOKED:
            # Who gave a card could as well have kept it back: no more than that is in its hands.
            if is_of_origin or await asyncio.to_thread(self._copies.gave, peer_id, card.digest):
                await self._store.revoke_card(card.digest)
        elif known.remote and is_of_origin:
            await self._store.delete(card.digest)

    async def _known(self, digest: str) -> records.CardRecord | None:
        try:
            return await self._store.get(digest)
        except errors.NotFoundError:
            return None

    def _wanted(self, card: watch.CardRecord) -> bool:
        try:
            base = manifests.parse(card.manifest_json).base_model
        except errors.CardFormatError:
            return False
        domains = any(fnmatch.fnmatchcase(card.domain, p) for p in self._policy.domains)
        bases = any(
            fnmatch.fnmatchcase(name, pattern)
            for pattern in self._policy.base_models
            for name in (base.id, card.base_fingerprint)
        )
        return domains and bases

    async def _fetch(self, digest: str, size_bytes: int, flight: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._fetchers, self._fetched, digest, size_bytes, flight)

    def _fetched(self, digest: str, size_bytes: int, flight: str) -> None:
        # The others that are fetched meanwhile take their share of the rate.
        timeout_s = _LONGEST_FETCH_S + _FETCHES_AT_ONCE * self._bandwidth.least_s(size_bytes)
        connection = flight_client.LoRAFlightClient(flight, self._protection)
        try:
            chunks = connection.chunks(digest, timeout_s, _SILENCE_S)
            limited = self._bandwidth.limited(memoryview(chunk) for chunk in chunks)
            self._files.stage(digest, size_bytes, limited)
        finally:
            connection.close()


def _record(card: watch.CardRecord, origin: str, remote: bool) -> records.CardRecord:
    values = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    values |= {"state": records.CardState.ACTIVE, "aliases": (), "origin": origin, "remote": remote}
    return records.CardRecord(**values)
