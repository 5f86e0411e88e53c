"""What a commit does with an uploaded file, in the store's writing thread.

It validates the file before anybody can see it, then moves it among the blobs, then writes the
catalogue in one transaction; killed in between, the same commit works again. Knows nothing of who
is told.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import pyarrow as pa

from services.card_store import blobs, records
from services.card_store.catalogue import catalogue
from shared import errors
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import datasets, samples, snapshots

Verify = Callable[[records.CardRecord], str]
"""Returns the id of the key that signed a card, empty for an unsigned one that is accepted.

Raises:
    errors.UntrustedError: the card must not be published.
"""
Accept = Callable[[Sequence[records.CardRecord]], None]
"""Takes the published versions of a name before another one joins them.

Raises:
    errors.ForbiddenError: this caller may not publish it.
"""
_CHECKS: dict[str, Callable[[pa.Buffer], object]] = {
    "dataset": datasets.check,
    "samples": samples.check,
    "snapshot": snapshots.check,
}
"""What each kind of table must pass before it is committed."""
KINDS = ("card", *_CHECKS)
_HOPELESS = (
    errors.CardFormatError,
    errors.AlreadyExistsError,
    errors.IntegrityError,
    errors.PreconditionError,
)
"""After these the same upload can never be committed."""


@dataclasses.dataclass(frozen=True)
class Whose:
    """Who answers for a card and who may see it."""

    signature_json: str
    """DSSE envelope over its digest; may be empty."""
    tenants: tuple[str, ...]
    """Empty: everybody."""
    traceparent: str = ""
    """Of the trace that it is committed in."""


class Commits:
    """Commits to one store; every method blocks, and one runs at a time."""

    def __init__(
        self,
        files: blobs.BlobStore,
        cards: catalogue.Catalogue,
        clock_ms: Callable[[], int],
        verify: Verify,
    ) -> None:
        """See `store.CardStore`."""
        self._files, self._cards = files, cards
        self._clock_ms, self._verify = clock_ms, verify

    def card(
        self, digest: str, size_bytes: int, whose: Whose, accept: Accept | None
    ) -> records.Commit:
        """Commits a card; see `store.CardStore.commit`."""
        known = self._cards.find_card_commit(digest)
        if known is not None:
            self._files.discard(digest)
            return known
        path = self._uploaded(digest, size_bytes)
        try:
            manifest = formats.LoRAFormat.load(path, expected_digest=digest).manifest
            if accept is not None:
                versions = records.Query(all_versions=True, name=manifest.name)
                accept(self._cards.list_cards(versions).cards)
            record = self._record(path, digest, manifest, whose)
            self._cards.check_acceptable(record)
        except _HOPELESS:
            self._files.discard(digest)
            raise
        self._files.promote(digest)
        return self._cards.add_card(record)

    def table(self, kind: str, digest: str, size_bytes: int) -> records.Commit:
        """Commits a dataset or a snapshot; see `store.CardStore.commit`."""
        known = self._cards.find_table_commit(digest)
        if known is not None:
            self._files.discard(digest)
            return known
        path = self._uploaded(digest, size_bytes)
        if (found := formats.file_digest(path)) != digest:
            self._files.discard(digest)
            raise errors.IntegrityError(f"upload {digest}: its SHA-256 is {found}; send it again")
        with pa.memory_map(str(path)) as source:
            _CHECKS[kind](source.read_buffer())
        size = path.stat().st_size
        self._files.promote(digest)
        return self._cards.add_table(kind, digest, size, self._clock_ms())

    def mirrored(self, record: records.CardRecord, giver: str) -> records.Commit:
        """Takes over a peer's card; see `store.CardStore.add_mirrored`."""
        try:
            card = dataclasses.replace(
                record, signer=self._verify(record), created_at_ms=self._clock_ms()
            )
            self._cards.check_acceptable(card)
        except _HOPELESS:
            self._files.discard(record.digest)
            raise
        if not record.remote:
            self._promote_mirrored(record)
        return self._cards.add_mirrored(card, giver)

    def arrived(self, record: records.CardRecord) -> records.CardRecord:
        """Takes the staged file of a remote card; see `store.CardStore.arrived`."""
        self._promote_mirrored(record)
        return self._cards.arrived(record.digest)

    def _promote_mirrored(self, record: records.CardRecord) -> None:
        path = self._uploaded(record.digest, record.size_bytes)
        manifest = formats.LoRAFormat.load(path, expected_digest=record.digest).manifest
        told = (record.name, record.version, record.base_fingerprint)
        if (manifest.name, manifest.version, manifest.base_model.fingerprint) != told:
            self._files.discard(record.digest)
            raise errors.UntrustedError(
                f"card {record.name}@{record.digest}: its file says that it is another card"
            )
        self._files.promote(record.digest)

    def _record(
        self, path: pathlib.Path, digest: str, manifest: manifests.Manifest, whose: Whose
    ) -> records.CardRecord:
        """The record of an uploaded card whose signature was looked at."""
        record = records.CardRecord(
            name=manifest.name,
            digest=digest,
            version=manifest.version,
            domain=manifest.domain,
            description=manifest.description,
            base_fingerprint=manifest.base_model.fingerprint,
            size_bytes=path.stat().st_size,
            created_at_ms=self._clock_ms(),
            manifest_json=manifest.to_json(),
            signature_json=whose.signature_json,
            tenants=whose.tenants,
            traceparent=whose.traceparent,
        )
        return dataclasses.replace(record, signer=self._verify(record))

    def _uploaded(self, digest: str, size_bytes: int) -> pathlib.Path:
        path = self._files.find(digest)
        if path is None:
            raise errors.NotFoundError(
                f"nothing was uploaded with digest {digest}; upload it over Flight, then commit"
            )
        size = path.stat().st_size
        if size_bytes not in (0, size):
            raise errors.IntegrityError(
                f"upload {digest}: has {size} bytes, the ticket says {size_bytes}"
            )
        return path
