"""The SQLite file of a node's agents: its tables, and how it is opened.

Knows nothing of what the rows mean.
"""

from __future__ import annotations

import pathlib
import sqlite3

from shared import errors

_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS agents (
  agent TEXT PRIMARY KEY,
  revision INTEGER NOT NULL,
  rounds INTEGER NOT NULL DEFAULT 0,
  examples INTEGER NOT NULL DEFAULT 0,
  settled INTEGER NOT NULL DEFAULT 0,
  mark TEXT NOT NULL DEFAULT '',
  moved INTEGER NOT NULL DEFAULT 0,
  state BLOB
);
CREATE TABLE IF NOT EXISTS forgotten (agent TEXT PRIMARY KEY, revision INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS feedback (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent TEXT NOT NULL,
  question TEXT NOT NULL,
  answer TEXT NOT NULL,
  rounds INTEGER NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,
  again INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS feedback_by_agent ON feedback (agent, id);
CREATE TABLE IF NOT EXISTS lessons (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL,
  question TEXT NOT NULL,
  answer TEXT NOT NULL,
  again INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS lessons_by_agent ON lessons (agent, id);
CREATE TABLE IF NOT EXISTS given_up (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL,
  question TEXT NOT NULL,
  answer TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS given_up_by_agent ON given_up (agent, id);
CREATE TABLE IF NOT EXISTS outgoing (
  agent TEXT NOT NULL, sequence INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (agent, sequence)
);
CREATE TABLE IF NOT EXISTS keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent TEXT NOT NULL, key TEXT NOT NULL, accepted INTEGER NOT NULL, UNIQUE (agent, key)
);
"""


PAIRS = ("feedback", "lessons", "given_up")
"""Tables with pairs of an agent; a question is in one of them."""
_ADDED = {"feedback": ("taken", "again"), "lessons": ("again",)}
"""Columns that files of before do not have."""


def opened(path: pathlib.Path) -> sqlite3.Connection:
    """Opens or makes the file; every transaction is on disk when it ends.

    Args:
        path: of the file; its folder is made where missing.

    Raises:
        errors.ConfigError: it can't be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        _add_columns(connection)
        return connection
    except (sqlite3.Error, OSError) as error:
        raise errors.ConfigError(
            f"the file of this node's agents, {path}, can't be opened: {error}; move it away "
            "to begin a new one"
        ) from error


def _add_columns(connection: sqlite3.Connection) -> None:
    for table, columns in _ADDED.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column in columns:
            if column not in there:
                connection.execute(
                    f"ALTER TABLE {table} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
                )
