"""The catalogue's tables, how a database with them is opened, and how it is brought up to date.

SQLite by default (write-ahead log, so that the data plane reads while the control plane writes),
any other database by its SQLAlchemy URL. Knows nothing of what the rows mean; see `catalogue`.
"""

from __future__ import annotations

import pathlib
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa

from shared import errors

METADATA = sa.MetaData()

STORE = sa.Table(
    "store",
    METADATA,
    sa.Column("store_id", sa.String(32), primary_key=True),
    # Lines of the revision log up to here are gone.
    sa.Column("compacted_to", sa.BigInteger, nullable=False, server_default="0"),
)
CARDS = sa.Table(
    "cards",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("base_fingerprint", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("manifest_json", sa.Text, nullable=False),
    sa.Column("signature_json", sa.Text, nullable=False, server_default=""),
    # Id of the key that signed it.
    sa.Column("signer", sa.String(64), nullable=False, server_default="", index=True),
    # `|one|two|`: whole names can be looked for. Empty: everybody.
    sa.Column("tenants", sa.Text, nullable=False, server_default=""),
    sa.Column("state", sa.String(16), nullable=False, server_default="ACTIVE"),
    sa.Column("origin", sa.String(32), nullable=False, server_default=""),
    sa.Column("remote", sa.Boolean, nullable=False, server_default=sa.false()),
    # Of the trace in which it was committed.
    sa.Column("traceparent", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("name", "version", name="one_digest_per_version"),
    sa.Index("ix_cards_listing", "name", "created_at_ms", "digest"),
    sa.Index("ix_cards_domain", "domain"),
)
DATASETS = sa.Table(
    "datasets",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    # dataset or snapshot.
    sa.Column("kind", sa.String(16), nullable=False, server_default="dataset"),
)
ALIASES = sa.Table(
    "aliases",
    METADATA,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("alias", sa.String(63), primary_key=True),
    sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), nullable=False, index=True),
)
REVISIONS = sa.Table(
    "revisions",
    METADATA,
    sa.Column(
        "revision",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    sa.Column("kind", sa.String(32), nullable=False),
    # The revocation of a key concerns no single card.
    sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), index=True),
    sa.Column("alias", sa.String(63), nullable=False),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("key_id", sa.String(64), nullable=False, server_default=""),
    sa.Column("at_ms", sa.BigInteger, nullable=False, server_default="0"),
    # A revision number must never come back, even after the newest line was deleted by hand.
    sqlite_autoincrement=True,
)
ALIAS_MOVES = sa.Table(
    "alias_moves",
    METADATA,
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("alias", sa.String(63), primary_key=True),
    sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), nullable=False),
    # The move that a rollback went back to; a move of its own stands for itself.
    sa.Column("stands_for", sa.BigInteger, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_alias_moves_alias", "name", "alias", "revision"),
)
REVOKED_KEYS = sa.Table(
    "revoked_keys",
    METADATA,
    sa.Column("key_id", sa.String(64), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)
PEERS = sa.Table(
    "peers",
    METADATA,
    sa.Column("store_id", sa.String(32), primary_key=True),
    # Of its log, the last that was mirrored.
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("control", sa.Text, nullable=False),
    # Where it serves bytes; empty while it can't be reached.
    sa.Column("flight", sa.Text, nullable=False, server_default=""),
)
COPIES = sa.Table(
    "copies",
    METADATA,
    sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), primary_key=True),
    sa.Column("store_id", sa.String(32), primary_key=True),
    # Whether that peer has the bytes.
    sa.Column("held", sa.Boolean, nullable=False),
    # Whether the card was taken from that peer.
    sa.Column("gave", sa.Boolean, nullable=False),
)
WORDS = sa.table("card_words", sa.column("digest"), sa.column("words"))
"""SQLite's own index of words (FTS5); other databases search the cards' texts."""

_BUSY_S = 10.0
_MIGRATIONS = pathlib.Path(__file__).parent / "migrations"
_BEGIN = "skillmesh_begin"


def open_database(url: str) -> sa.Engine:
    """Opens the catalogue's database for reading and writing.

    Args:
        url: SQLAlchemy URL.

    Raises:
        errors.ConfigError: the URL is malformed or its driver is missing.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed, ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"))
        return sa.create_engine(parsed, pool_pre_ping=True)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise errors.ConfigError(f"card_store.database_url: {error}") from error


def open_read_only(url: str) -> sa.Engine:
    """Opens the same database for a process that must not change it; the file may come later."""
    if not url.startswith("sqlite"):
        return open_database(url).execution_options(postgresql_readonly=True)
    path = pathlib.Path(str(sa.make_url(url).database)).absolute()
    return _sqlite(
        sa.URL.create("sqlite", database=path.as_uri(), query={"mode": "ro", "uri": "true"}), ()
    )


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write.

    SQLite takes the write lock at the beginning of such a transaction: one that reads first and
    then writes could otherwise fail half way because another process wrote in between.
    """
    return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


def migrate(engine: sa.Engine) -> None:
    """Brings the tables to the newest revision of `migrations/`.

    Raises:
        errors.ConfigError: the database can't be opened or was written by a newer skillmesh.
    """
    configuration = alembic.config.Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    try:
        with writing(engine).begin() as connection:
            configuration.attributes["connection"] = connection
            alembic.command.upgrade(configuration, "head")
    except (sa.exc.SQLAlchemyError, alembic.util.CommandError) as error:
        raise errors.ConfigError(
            f"the card store's catalogue at {engine.url} can't be brought up to date: {error}; "
            "check card_store.database_url and cluster.state_dir"
        ) from error


def number_revisions_from(connection: sa.Connection, revision: int) -> None:
    """Gives the next line of the revision log a number."""
    if connection.dialect.name == "sqlite":
        name, last = {"name": REVISIONS.name}, {"last": revision - 1}
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), name)
        new = sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)")
        connection.execute(new, name | last)
    else:
        restart = f"ALTER TABLE {REVISIONS.name} ALTER COLUMN revision RESTART WITH {revision:d}"
        connection.execute(sa.text(restart))


def _sqlite(url: sa.URL, pragmas: tuple[str, ...]) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})

    def on_connect(connection: Any, _record: Any) -> None:
        # Python's sqlite3 would begin transactions by itself, and only before the first write:
        # what is read before it could be stale. Here every transaction begins where it says.
        connection.isolation_level = None
        for pragma in ("PRAGMA foreign_keys=ON", *pragmas):
            connection.execute(pragma)

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine
