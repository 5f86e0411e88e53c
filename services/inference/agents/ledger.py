"""What this node keeps of its agents, in one SQLite file: their states, and feedback to learn.

Whatever belongs together is one transaction, on disk when it returns, so that a killed process
goes on from between two of them. States are bytes here; what is in them it does not know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence

from shared import errors

_BUSY_S = 30.0
LONGEST_TEXT = 8_000
"""Characters of a question or an answer of feedback."""
MOST_PAIRS = 1_000
"""Of one call."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_KEYS = 10_000
"""Idempotency keys that are kept; of calls before these a repetition is not noticed."""
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
  rounds INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS feedback_by_agent ON feedback (agent, id);
CREATE TABLE IF NOT EXISTS lessons (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL,
  question TEXT NOT NULL,
  answer TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS lessons_by_agent ON lessons (agent, id);
CREATE TABLE IF NOT EXISTS outgoing (
  agent TEXT NOT NULL, sequence INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (agent, sequence)
);
CREATE TABLE IF NOT EXISTS keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent TEXT NOT NULL, key TEXT NOT NULL, accepted INTEGER NOT NULL, UNIQUE (agent, key)
);
"""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A question with its right answer."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Record:
    """What is kept of an agent beside its state."""

    agent: str
    revision: int
    """Grows with every change of its own layers."""
    rounds: int = 0
    """Of learning."""
    examples: int = 0
    """Pairs that took part in all their rounds."""
    settled: int = 0
    """The last sequence whose settlement was applied."""
    mark: str = ""
    """Of that settlement."""
    moved: int = 0
    """Circuits that moved up, from its context layer or out of its agent layer."""


@dataclasses.dataclass(frozen=True)
class Queued:
    """A pair that is to be learned."""

    id: int
    pair: Pair


@dataclasses.dataclass(frozen=True)
class Given:
    """What became of a call with feedback."""

    accepted: int
    queued: int
    """Pairs of the agent that are not learned yet."""


def check(agent: str, pairs: Sequence[Pair]) -> None:
    """Checks a name and what is to be learned.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    if not _NAME.fullmatch(agent):
        raise errors.InvalidInputError(
            f"agent {agent[:80]!r}: give 1 to 64 letters, digits, dots, dashes and underscores"
        )
    if not 0 < len(pairs) <= MOST_PAIRS:
        raise errors.InvalidInputError(
            f"agent {agent!r}: {len(pairs)} pairs; give 1 to {MOST_PAIRS} in one call"
        )
    for at, pair in enumerate(pairs):
        for field, text in (("question", pair.question), ("answer", pair.answer)):
            if not text.strip() or len(text) > LONGEST_TEXT:
                raise errors.InvalidInputError(
                    f"pairs[{at}].{field} has {len(text):,} characters; give 1 to "
                    f"{LONGEST_TEXT:,}, not blank"
                )


class Ledger:
    """One node's file; for any thread."""

    def __init__(self, path: pathlib.Path, most_agents: int, most_queued: int, most_lessons: int):
        """Opens or makes the file.

        Args:
            path: of the file; its folder is made where missing.
            most_agents: that may be known.
            most_queued: pairs of one agent that wait to be learned.
            most_lessons: pairs of one agent that are kept to be rehearsed, the newest.

        Raises:
            errors.ConfigError: it can't be opened.
        """
        self._most_agents, self._most_queued = most_agents, most_queued
        self._most_lessons = most_lessons
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise errors.ConfigError(
                f"the file of this node's agents, {path}, can't be opened: {error}; move it away "
                "to begin a new one"
            ) from error

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def records(self) -> list[Record]:
        """Of all agents, in the order of their names."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT agent, revision, rounds, examples, settled, mark, moved FROM agents "
                "ORDER BY agent"
            )
            return [Record(*row) for row in rows]

    def state(self, agent: str) -> bytes | None:
        """What was committed last; None before the first time, or for an unknown agent."""
        found = self._one("SELECT state FROM agents WHERE agent = ?", agent)
        return None if found is None else found[0]

    def give(self, agent: str, key: str, pairs: Sequence[Pair], rounds: int) -> Given:
        """Takes feedback; makes the agent where it is not known.

        Args:
            agent: whose.
            key: the same key again is taken once; empty: each call counts.
            pairs: to learn.
            rounds: in which each is to take part.

        Raises:
            errors.CapacityError: there are as many agents as may be.
            errors.OverloadedError: too many pairs of the agent wait; nothing was taken.
        """
        with self._transaction() as run:
            waiting = run("SELECT COUNT(*) FROM feedback WHERE agent = ?", agent).fetchone()[0]
            seen = run("SELECT accepted FROM keys WHERE agent = ? AND key = ?", agent, key)
            if key and (row := seen.fetchone()) is not None:
                return Given(row[0], waiting)
            if waiting + len(pairs) > self._most_queued:
                raise errors.OverloadedError(
                    f"agent {agent!r}: {waiting} pairs wait to be learned, with these {len(pairs)} "
                    "more than hierarchy.agents.queue allows; give the rest later"
                )
            self._make(run, agent)
            for pair in pairs:
                run(
                    "INSERT INTO feedback (agent, question, answer, rounds) VALUES (?, ?, ?, ?)",
                    *(agent, pair.question, pair.answer, rounds),
                )
            if key:
                run(
                    "INSERT INTO keys (agent, key, accepted) VALUES (?, ?, ?)",
                    agent,
                    key,
                    len(pairs),
                )
                run("DELETE FROM keys WHERE id <= (SELECT MAX(id) FROM keys) - ?", _MOST_KEYS)
            return Given(len(pairs), waiting + len(pairs))

    def queued(self, agent: str, most: int) -> list[Queued]:
        """The pairs of an agent that have waited longest."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, question, answer FROM feedback WHERE agent = ? ORDER BY id LIMIT ?",
                (agent, most),
            )
            return [Queued(row[0], Pair(row[1], row[2])) for row in rows]

    def counts(self) -> dict[str, int]:
        """Pairs that wait, by agent; who waited longest comes first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT agent, COUNT(*) FROM feedback GROUP BY agent ORDER BY MIN(id)"
            )
            return {agent: count for agent, count in rows}

    def lessons(self, agent: str) -> list[Pair]:
        """What the agent has learned and may rehearse, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT question, answer FROM lessons WHERE agent = ? ORDER BY id", (agent,)
            )
            return [Pair(*row) for row in rows]

    def commit(
        self,
        record: Record,
        state: bytes,
        learned: Sequence[Queued] = (),
        outgoing: tuple[int, bytes] | None = None,
    ) -> Record:
        """Writes an agent's state, with all that belongs to the step that led to it.

        Args:
            record: of the agent; its examples are counted here.
            state: the whole of it.
            learned: pairs that took part in another round; what has had all is kept as a lesson.
            outgoing: sequence and bytes of a submission that is to be sent.

        Returns:
            The record as it is now.

        Raises:
            errors.NotFoundError: the agent was forgotten in the meantime; nothing was written.
        """
        with self._transaction() as run:
            done = 0
            for one in learned:
                run("UPDATE feedback SET rounds = rounds - 1 WHERE id = ?", one.id)
                moved = run(
                    "INSERT INTO lessons (id, agent, question, answer) SELECT id, agent, question, "
                    "answer FROM feedback WHERE id = ? AND rounds <= 0",
                    one.id,
                )
                done += moved.rowcount
            run("DELETE FROM feedback WHERE agent = ? AND rounds <= 0", record.agent)
            run(
                "DELETE FROM lessons WHERE agent = ?1 AND id NOT IN (SELECT id FROM lessons WHERE "
                "agent = ?1 ORDER BY id DESC LIMIT ?2)",
                *(record.agent, self._most_lessons),
            )
            record = dataclasses.replace(record, examples=record.examples + done)
            updated = run(
                "UPDATE agents SET revision = ?, rounds = ?, examples = ?, settled = ?, mark = ?, "
                "moved = ?, state = ? WHERE agent = ?",
                *(record.revision, record.rounds, record.examples, record.settled, record.mark),
                *(record.moved, state, record.agent),
            )
            if not updated.rowcount:
                raise errors.NotFoundError(f"agent {record.agent!r} was forgotten")
            if outgoing is not None:
                run("INSERT INTO outgoing VALUES (?, ?, ?)", record.agent, *outgoing)
            return record

    def outgoing(self) -> list[tuple[str, int, bytes]]:
        """Submissions that nobody has taken over yet, in order."""
        with self._lock:
            return list(
                self._connection.execute(
                    "SELECT agent, sequence, data FROM outgoing ORDER BY agent, sequence"
                )
            )

    def taken_over(self, agent: str, sequence: int) -> None:
        """Drops a submission that somebody else keeps from now on."""
        with self._transaction() as run:
            run("DELETE FROM outgoing WHERE agent = ? AND sequence = ?", agent, sequence)

    def forget(self, agent: str) -> bool:
        """Drops all of an agent but how often its layers had changed; whether it was known."""
        with self._transaction() as run:
            row = run("SELECT revision FROM agents WHERE agent = ?", agent).fetchone()
            if row is not None:
                run("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", agent, row[0])
            for table in ("agents", "feedback", "lessons", "outgoing", "keys"):
                run(f"DELETE FROM {table} WHERE agent = ?", agent)
            return row is not None

    def _make(self, run: _Run, agent: str) -> None:
        if run("SELECT 1 FROM agents WHERE agent = ?", agent).fetchone() is not None:
            return
        if run("SELECT COUNT(*) FROM agents").fetchone()[0] >= self._most_agents:
            raise errors.CapacityError(
                f"agent {agent!r} can't be made: this node has {self._most_agents}, as many as "
                "hierarchy.agents.most allows; ForgetAgent drops one that is not needed"
            )
        # No version is ever used twice, not even by another agent of the same name.
        before = run("SELECT revision FROM forgotten WHERE agent = ?", agent).fetchone()
        run(
            "INSERT INTO agents (agent, revision) VALUES (?, ?)",
            *(agent, 0 if before is None else before[0] + 1),
        )

    def _one(self, query: str, *values: object) -> tuple[bytes | None] | None:
        with self._lock:
            found: tuple[bytes | None] | None = self._connection.execute(query, values).fetchone()
            return found

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[_Run]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield _Run(self._connection)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


class _Run:
    """Executes within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __call__(self, query: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(query, values)
