"""What nodes said last, in a database that several stores share.

A store writes the reports that it got and reads those of the others. Time is the database's own:
the stores' clocks may differ. Calls block: use a thread.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from services.card_store import records
from services.card_store.catalogue import database, schema

_NODES = schema.NODES
_NOW_MS = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()) * 1000, sa.BigInteger)


class Nodes:
    """The table of one PostgreSQL catalogue."""

    def __init__(self, opened: database.Database) -> None:
        """Takes the database."""
        self._database = opened

    def write(self, reports: Sequence[records.NodeResidency]) -> None:
        """Takes reports in place of those before."""
        if not reports:
            return
        rows = [
            {"node_id": one.node_id, "report": json.dumps(dataclasses.asdict(one))}
            for one in reports
        ]
        insert = postgresql.insert(_NODES).values(
            [row | {"reported_at_ms": _NOW_MS} for row in rows]
        )
        insert = insert.on_conflict_do_update(
            index_elements=[_NODES.c.node_id],
            set_={
                "report": insert.excluded.report,
                "reported_at_ms": insert.excluded.reported_at_ms,
            },
        )
        with self._database.read() as connection:
            connection.execute(insert)

    def read(self, forgotten_after_s: float) -> list[tuple[records.NodeResidency, float]]:
        """Every node that is not silent, with how many seconds ago it reported; drops the rest."""
        since_ms = _NOW_MS - round(forgotten_after_s * 1000)
        query = sa.select(_NODES.c.report, (_NOW_MS - _NODES.c.reported_at_ms).label("age_ms"))
        with self._database.read() as connection:
            connection.execute(_NODES.delete().where(_NODES.c.reported_at_ms < since_ms))
            return [(_report(row.report), row.age_ms / 1000) for row in connection.execute(query)]


def _report(text: str) -> records.NodeResidency:
    fields = json.loads(text)
    known = {field.name for field in dataclasses.fields(records.NodeResidency)}
    # A store of another version may know more of a node, or less.
    fields = {name: value for name, value in fields.items() if name in known}
    return records.NodeResidency(**fields | {"digests": tuple(fields["digests"])})
