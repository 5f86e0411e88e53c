"""What the catalogue knows of age and need: superseded versions, datasets of no card, needed files.

Decides nothing and touches no file; `maintenance` does. Calls block: use a thread.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import database, rows, schema

_CARDS, _DATASETS = rows.CARDS, schema.DATASETS
_AT_ONCE = 500
_IN_SERVICE = sa.and_(_CARDS.c.state == records.CardState.ACTIVE.value, ~_CARDS.c.remote)


class Upkeep:
    """The questions that upkeep asks one catalogue."""

    def __init__(self, opened: database.Database) -> None:
        """Takes the database."""
        self._database = opened

    def superseded(self, keep_versions: int, before_ms: int) -> list[str]:
        """Digests of active cards that newer versions have replaced.

        Args:
            keep_versions: the newest of a name that stay, whatever their age.
            before_ms: Unix time; what was committed later stays.

        Returns:
            No card that an alias points to, and nothing where all versions stay.
        """
        if keep_versions <= 0:
            return []
        pointed_to = sa.exists().where(rows.ALIASES.c.digest == _CARDS.c.digest)
        query = sa.select(
            _CARDS.c.name,
            _CARDS.c.version,
            _CARDS.c.digest,
            _CARDS.c.created_at_ms,
            pointed_to.label("is_pointed_to"),
        )
        query = query.where(_CARDS.c.state == records.CardState.ACTIVE.value)
        found: list[str] = []
        with self._database.read() as connection:
            named = connection.execute(query.order_by(_CARDS.c.name))
            for _, versions in itertools.groupby(named, key=lambda row: row.name):
                newest_first = sorted(
                    versions, key=lambda row: rows.version_key(row.version), reverse=True
                )
                found += (
                    row.digest
                    for row in newest_first[keep_versions:]
                    if not row.is_pointed_to and row.created_at_ms < before_ms
                )
        return found

    def unused_datasets(self, before_ms: int) -> list[str]:
        """Digests of datasets committed before a Unix time that no card in service was made of."""
        manifests = sa.select(_CARDS.c.manifest_json).where(_IN_SERVICE)
        old = sa.select(_DATASETS.c.digest).where(
            _DATASETS.c.created_at_ms < before_ms, _DATASETS.c.kind == "dataset"
        )
        with self._database.read() as connection:
            used = set(map(_dataset, connection.scalars(manifests)))
            return [digest for digest in connection.scalars(old) if digest not in used]

    def drop_datasets(self, digests: Sequence[str]) -> None:
        """Takes datasets off the record."""
        for at in range(0, len(digests), _AT_ONCE):
            some = digests[at : at + _AT_ONCE]
            with self._database.write() as connection:
                connection.execute(_DATASETS.delete().where(_DATASETS.c.digest.in_(some)))

    def files(self) -> dict[str, int]:
        """Digest to bytes of every file that must be here."""
        cards = sa.select(_CARDS.c.digest, _CARDS.c.size_bytes).where(_IN_SERVICE)
        datasets = sa.select(_DATASETS.c.digest, _DATASETS.c.size_bytes)
        with self._database.read() as connection:
            return {
                digest: size_bytes
                for query in (cards, datasets)
                for digest, size_bytes in connection.execute(query)
            }


def _dataset(manifest_json: str) -> str | None:
    try:
        digest = json.loads(manifest_json)["lineage"]["dataset_digest"]
    except (ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None
