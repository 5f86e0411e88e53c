"""What this node keeps of its agents, in one SQLite file: their states, and feedback to learn.

A pair waits in the queue, is a lesson once it was learned, and is told as given up where it could
not be; of one question an agent has one answer, the one that it was told last. Whatever belongs
together is one transaction, on disk when it returns, so that a killed process goes on from between
two of them. States are bytes here; what is in them it does not know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.inference.agents import feedback, ledger_file
from shared import errors

_MOST_KEYS = 10_000
"""Idempotency keys that are kept; of calls before these a repetition is not noticed."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is kept of an agent beside its state."""

    agent: str
    revision: int
    """Grows with every change of its own layers."""
    rounds: int = 0
    """Of learning."""
    examples: int = 0
    """Pairs that it learned."""
    settled: int = 0
    """The last sequence whose settlement was applied."""
    mark: str = ""
    """Of that settlement."""
    moved: int = 0
    """Circuits that moved up, from its context layer or out of its agent layer."""


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
        self._connection = ledger_file.opened(path)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def records(self) -> list[Record]:
        """Of all agents, in the order of their names."""
        rows = self._read(
            "SELECT agent, revision, rounds, examples, settled, mark, moved FROM agents "
            "ORDER BY agent"
        )
        return [Record(*row) for row in rows]

    def state(self, agent: str) -> bytes | None:
        """What was committed last; None before the first time, or for an unknown agent."""
        found = self._read("SELECT state FROM agents WHERE agent = ?", agent)
        return found[0][0] if found else None

    def give(
        self, agent: str, key: str, pairs: Sequence[feedback.Pair], rounds: int
    ) -> feedback.Given:
        """Takes feedback; makes the agent where it is not known.

        What the agent was told of the same question before is dropped, wherever it stands.

        Args:
            agent: whose.
            key: the same key again is taken once; empty: each call counts.
            pairs: to learn; of several with one question the last counts.
            rounds: in which each may take part.

        Raises:
            errors.CapacityError: there are as many agents as may be.
            errors.OverloadedError: too many pairs of the agent wait; nothing was taken.
        """
        told = {pair.question: pair for pair in pairs}
        with self._transaction() as run:
            seen = run("SELECT accepted FROM keys WHERE agent = ? AND key = ?", agent, key)
            if key and (row := seen.fetchone()) is not None:
                return feedback.Given(row[0], self._waiting(run, agent))
            self._make(run, agent)
            for question in told:
                for table in ledger_file.PAIRS:
                    run(f"DELETE FROM {table} WHERE agent = ? AND question = ?", agent, question)
            waiting = self._waiting(run, agent)
            if waiting + len(told) > self._most_queued:
                raise errors.OverloadedError(
                    f"agent {agent!r}: {waiting} pairs wait to be learned, with these {len(told)} "
                    "more than hierarchy.agents.queue allows; give the rest later"
                )
            for pair in told.values():
                run(
                    "INSERT INTO feedback (agent, question, answer, rounds) VALUES (?, ?, ?, ?)",
                    *(agent, pair.question, pair.answer, rounds),
                )
            if key:
                run(
                    "INSERT INTO keys (agent, key, accepted) VALUES (?, ?, ?)",
                    agent,
                    key,
                    len(told),
                )
                run("DELETE FROM keys WHERE id <= (SELECT MAX(id) FROM keys) - ?", _MOST_KEYS)
            return feedback.Given(len(told), waiting + len(told))

    def queued(self, agent: str, most: int) -> list[feedback.Queued]:
        """The pairs of an agent that have waited longest."""
        rows = self._read(
            "SELECT id, question, answer, taken, rounds FROM feedback WHERE agent = ? ORDER BY id "
            "LIMIT ?",
            *(agent, most),
        )
        return [
            feedback.Queued(row[0], feedback.Pair(row[1], row[2]), row[3], row[4]) for row in rows
        ]

    def counts(self) -> dict[str, int]:
        """Pairs that wait, by agent; who waited longest comes first."""
        return dict(
            self._read("SELECT agent, COUNT(*) FROM feedback GROUP BY agent ORDER BY MIN(id)")
        )

    def lessons(self, agent: str) -> dict[int, feedback.Pair]:
        """What the agent has learned and may rehearse, by its number, oldest first."""
        rows = self._read(
            "SELECT id, question, answer FROM lessons WHERE agent = ? ORDER BY id", agent
        )
        return {row[0]: feedback.Pair(row[1], row[2]) for row in rows}

    def given_up_counts(self) -> dict[str, int]:
        """Pairs that were given up, by agent."""
        return dict(self._read("SELECT agent, COUNT(*) FROM given_up GROUP BY agent"))

    def given_up(self, agent: str, most: int) -> list[feedback.GivenUp]:
        """What the agent could not learn, or not keep, newest first."""
        rows = self._read(
            "SELECT question, answer, reason FROM given_up WHERE agent = ? ORDER BY id DESC "
            "LIMIT ?",
            *(agent, most),
        )
        return [
            feedback.GivenUp(feedback.Pair(row[0], row[1]), feedback.Reason(row[2])) for row in rows
        ]

    def commit(
        self,
        record: Record,
        state: bytes,
        learned: Sequence[feedback.Queued] = (),
        outgoing: tuple[int, bytes] | None = None,
    ) -> Record:
        """Writes an agent's state, with all that belongs to the step that led to it.

        Args:
            record: of the agent; its examples are counted by `leave`.
            state: the whole of it.
            learned: pairs that took part in another round.
            outgoing: sequence and bytes of a submission that is to be sent.

        Returns:
            The record as it is now.

        Raises:
            errors.NotFoundError: the agent was forgotten in the meantime; nothing was written.
        """
        with self._transaction() as run:
            for one in learned:
                run(
                    "UPDATE feedback SET rounds = rounds - 1, taken = taken + 1 WHERE id = ?",
                    one.id,
                )
            updated = run(
                "UPDATE agents SET revision = ?, rounds = ?, settled = ?, mark = ?, moved = ?, "
                "state = ? WHERE agent = ? RETURNING examples",
                *(record.revision, record.rounds, record.settled, record.mark, record.moved),
                *(state, record.agent),
            ).fetchone()
            if updated is None:
                raise errors.NotFoundError(f"agent {record.agent!r} was forgotten")
            if outgoing is not None:
                run("INSERT INTO outgoing VALUES (?, ?, ?)", record.agent, *outgoing)
            return dataclasses.replace(record, examples=updated[0])

    def leave(self, agent: str, left: Mapping[int, feedback.Reason | None]) -> int:
        """Takes pairs out of the queue: what was learned is a lesson now, the rest is given up.

        Args:
            agent: whose.
            left: by the number of the pair, None or why it is given up; those that were told anew
                in the meantime are left alone.

        Returns:
            How many pairs the agent has learned in all; one that it learns again does not count.
        """
        with self._transaction() as run:
            new = 0
            for number, reason in left.items():
                row = run(
                    "DELETE FROM feedback WHERE agent = ? AND id = ? RETURNING question, answer, "
                    "again",
                    *(agent, number),
                ).fetchone()
                if row is None:
                    continue
                if reason is None:
                    new += not row[2]
                    run("INSERT INTO lessons VALUES (?, ?, ?, ?, ?)", number, agent, *row)
                else:
                    self._give_up(run, number, agent, row[0], row[1], reason)
            self._keep_newest(run, "lessons", agent)
            row = run(
                "UPDATE agents SET examples = examples + ? WHERE agent = ? RETURNING examples",
                *(new, agent),
            ).fetchone()
            return 0 if row is None else int(row[0])

    def looked(
        self, agent: str, right: Sequence[int], wrong: Sequence[int], rounds: int, most_again: int
    ) -> int:
        """Notes which lessons an agent still knows; those it has forgotten are to learn again.

        Args:
            agent: whose.
            right: numbers of lessons that it answers right: one time of learning again is forgiven.
            wrong: those that it does not.
            rounds: in which they may take part now.
            most_again: so often a lesson is learned again, then it is given up as contested.

        Returns:
            How many are to be learned again.
        """
        with self._transaction() as run:
            for number in right:
                run("UPDATE lessons SET again = MAX(0, again - 1) WHERE id = ?", number)
            again = 0
            for number in wrong:
                row = run(
                    "DELETE FROM lessons WHERE agent = ? AND id = ? RETURNING question, answer, "
                    "again",
                    *(agent, number),
                ).fetchone()
                if row is None:
                    continue
                if row[2] >= most_again:
                    self._give_up(run, number, agent, row[0], row[1], feedback.Reason.CONTESTED)
                    continue
                again += 1
                run(
                    "INSERT INTO feedback (agent, question, answer, rounds, again) "
                    "VALUES (?, ?, ?, ?, ?)",
                    *(agent, row[0], row[1], rounds, row[2] + 1),
                )
            return again

    def outgoing(self) -> list[tuple[str, int, bytes]]:
        """Submissions that nobody has taken over yet, in order."""
        return self._read("SELECT agent, sequence, data FROM outgoing ORDER BY agent, sequence")

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
            for table in ("agents", "outgoing", "keys", *ledger_file.PAIRS):
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

    def _give_up(
        self,
        run: _Run,
        number: int,
        agent: str,
        question: str,
        answer: str,
        reason: feedback.Reason,
    ) -> None:
        run("INSERT INTO given_up VALUES (?, ?, ?, ?, ?)", number, agent, question, answer, reason)
        self._keep_newest(run, "given_up", agent)

    def _keep_newest(self, run: _Run, table: str, agent: str) -> None:
        run(
            f"DELETE FROM {table} WHERE agent = ?1 AND id NOT IN (SELECT id FROM {table} WHERE "
            "agent = ?1 ORDER BY id DESC LIMIT ?2)",
            *(agent, self._most_lessons),
        )

    def _waiting(self, run: _Run, agent: str) -> int:
        return int(run("SELECT COUNT(*) FROM feedback WHERE agent = ?", agent).fetchone()[0])

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

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
