"""What teachers cost: every call on disk, an estimate before it, and a budget that stops.

A call is written down at its largest possible size before it is made and at its real one when its
answer is there, in one transaction with the answer. One whose end nobody saw (the process was
killed, the connection broke) stays at its estimate: the provider may have charged for it. So the
budget holds whatever happens, and an answer that was paid for is not asked for again.

Knows nothing about SDKs and prices no model by itself: rates come from `evolution.rates`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pathlib
import sqlite3
from collections.abc import Callable, Iterator

from shared import costs, errors, teacher_settings

_MILLION = 1_000_000
_ANSWERS_KEPT_MS = 7 * 24 * 3600 * 1000
"""A task that is older asks again; what was spent stays on record."""
_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
  id INTEGER PRIMARY KEY,
  task_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  free INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  day TEXT NOT NULL,
  conversation TEXT NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  dollars REAL,
  estimated INTEGER NOT NULL,
  answer TEXT
);
CREATE INDEX IF NOT EXISTS calls_by_task ON calls (task_id);
CREATE INDEX IF NOT EXISTS calls_by_day ON calls (day);
"""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one call."""

    tokens_in: int
    tokens_out: int
    estimated: bool = False
    """Nobody told them."""


@dataclasses.dataclass(frozen=True)
class Order:
    """One call that is to be made."""

    task_id: str
    """Whose budget pays."""
    provider: str
    model: str
    free: bool
    """It costs nothing: no budget stops it."""
    conversation: str
    """Names what is asked: the same one again gets the answer that was paid for."""
    largest: Usage
    """The most it can come to."""


@dataclasses.dataclass(frozen=True)
class _Limit:
    """What the calls of one task, or of one day, may come to."""

    name: str
    whose: str
    column: str
    value: str
    tokens: int
    dollars: float


class Ledger:
    """The calls of all tasks, in a SQLite file."""

    def __init__(
        self,
        path: pathlib.Path | None,
        settings: teacher_settings.Evolution,
        now_ms: Callable[[], int],
    ) -> None:
        """Opens the file and makes it where it is missing.

        Args:
            path: the file; nothing for one in memory.
            settings: rates and budget.
            now_ms: Unix time in milliseconds.

        Raises:
            errors.ConfigError: the file is damaged, or not of this kind.
        """
        self._rates, self._budget, self._now_ms = settings.rates, settings.budget, now_ms
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=_BUSY_S, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(
                "UPDATE calls SET answer = NULL WHERE at_ms < ?", (now_ms() - _ANSWERS_KEPT_MS,)
            )
        except sqlite3.Error as error:
            raise errors.ConfigError(
                f"the record of what teachers cost, {path}, can't be opened: {error}; move it "
                "away to begin a new one"
            ) from error

        self.on_paid: Callable[[Order, Usage, float | None], None] = lambda *_: None
        """Is told of every call that was answered, with its dollars where they are known."""

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def answer(self, order: Order) -> str | None:
        """The answer to the same question of the same task, where it is paid for already."""
        row = self._connection.execute(
            "SELECT answer FROM calls WHERE task_id = ? AND task_id <> '' AND provider = ?"
            " AND conversation = ? AND answer IS NOT NULL ORDER BY id DESC LIMIT 1",
            (order.task_id, order.provider, order.conversation),
        ).fetchone()
        return None if row is None else str(row[0])

    def open(self, order: Order) -> int:
        """Writes a call down that is about to be made, at its largest size.

        Returns:
            Its number.

        Raises:
            errors.BudgetError: it could exceed a budget; nothing is written.
        """
        at_ms = self._now_ms()
        with self._transaction():
            if not order.free:
                self._check(order, _day(at_ms))
            cursor = self._connection.execute(
                "INSERT INTO calls (task_id, provider, model, free, at_ms, day, conversation,"
                " tokens_in, tokens_out, dollars, estimated) VALUES (?,?,?,?,?,?,?,?,?,?,1)",
                (
                    order.task_id,
                    order.provider,
                    order.model,
                    order.free,
                    at_ms,
                    _day(at_ms),
                    order.conversation,
                    order.largest.tokens_in,
                    order.largest.tokens_out,
                    self._dollars(order, order.largest),
                ),
            )
        return int(cursor.lastrowid or 0)

    def settle(self, number: int, order: Order, usage: Usage, answer: str) -> None:
        """Writes down what a call came to, with its answer."""
        dollars = self._dollars(order, usage)
        self._connection.execute(
            "UPDATE calls SET tokens_in = ?, tokens_out = ?, dollars = ?, estimated = ?,"
            " answer = ? WHERE id = ?",
            (
                usage.tokens_in,
                usage.tokens_out,
                dollars,
                usage.estimated,
                answer,
                number,
            ),
        )
        self.on_paid(order, usage, dollars)

    def release(self, number: int) -> None:
        """Forgets a call that cost nothing: it was turned down, or never reached the provider."""
        self._connection.execute("DELETE FROM calls WHERE id = ?", (number,))

    def of_task(self, task_id: str) -> costs.Spent:
        """What the calls of a task cost."""
        return self._spent("task_id = ?", task_id)

    def today(self) -> costs.Spent:
        """What the calls of this day (UTC) cost."""
        return self._spent("day = ?", _day(self._now_ms()))

    def _spent(self, where: str, value: str) -> costs.Spent:
        row = self._connection.execute(
            "SELECT COUNT(*), TOTAL(tokens_in), TOTAL(tokens_out), TOTAL(dollars),"
            f" TOTAL(dollars IS NULL), TOTAL(estimated) FROM calls WHERE {where}",
            (value,),
        ).fetchone()
        calls, tokens_in, tokens_out, dollars, unpriced, estimated = row
        return costs.Spent(
            calls, int(tokens_in), int(tokens_out), dollars, int(unpriced), int(estimated)
        )

    def _check(self, order: Order, day: str) -> None:
        budget = self._budget
        for limit in (
            _Limit(
                *("task", "of this task", "task_id", order.task_id),
                *(budget.task_tokens, budget.task_dollars),
            ),
            _Limit("day", f"of {day} (UTC)", "day", day, budget.day_tokens, budget.day_dollars),
        ):
            self._check_limit(order, limit)

    def _check_limit(self, order: Order, limit: _Limit) -> None:
        tokens = order.largest.tokens_in + order.largest.tokens_out
        dollars = self._dollars(order, order.largest)
        spent_tokens, spent_dollars = self._connection.execute(
            "SELECT TOTAL(tokens_in + tokens_out), TOTAL(dollars) FROM calls"
            f" WHERE {limit.column} = ? AND NOT free",
            (limit.value,),
        ).fetchone()
        key = f"evolution.budget.{limit.name}"
        if limit.tokens and spent_tokens + tokens > limit.tokens:
            raise errors.BudgetError(
                f"{order.provider}: a call of up to {tokens:,} tokens does not fit into the "
                f"{limit.tokens:,} tokens {limit.whose}, of which {int(spent_tokens):,} are spent; "
                f"raise {key}_tokens, or lower evolution.max_output_tokens, in config.yaml"
            )
        if limit.dollars and dollars is None:
            raise errors.BudgetError(
                f"{order.provider}: what it costs is not known, so {key}_dollars can't be kept; "
                f"add evolution.rates.{order.model} to config.yaml"
            )
        if limit.dollars and dollars is not None and spent_dollars + dollars > limit.dollars:
            raise errors.BudgetError(
                f"{order.provider}: a call of up to ${dollars:.4f} does not fit into the "
                f"${limit.dollars:.4f} {limit.whose}, of which ${spent_dollars:.4f} are spent; "
                f"raise {key}_dollars, or lower evolution.max_output_tokens, in config.yaml"
            )

    def _dollars(self, order: Order, usage: Usage) -> float | None:
        if order.free:
            return 0.0
        rate = self._rates.get(order.model)
        if rate is None:
            return None
        return (usage.tokens_in * rate.input + usage.tokens_out * rate.output) / _MILLION

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def tokens(text: str) -> int:
    """About how many tokens a text has, rather too many: a token for every three bytes.

    English has four to five bytes a token; scripts of three bytes a character about one token a
    character.
    """
    return -(-len(text.encode(errors="replace")) // 3)


def _day(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).date().isoformat()
