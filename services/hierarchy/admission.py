"""How much agents may send: each its share of a tick and of a minute, all together the memory.

A submission is admitted before a byte of it is read, by the size that it announced, and counts
until the tick that takes it has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from shared import errors

_BURST_TICKS = 2
"""Of submissions that an agent may send at once, in ticks' shares."""


@dataclasses.dataclass
class _Account:
    """Of one agent."""

    tokens: float
    """Submissions that it may send now: a token bucket."""
    filled_at_s: float
    waiting: int = 0
    """Submissions that the next tick takes, those on their way included."""


@dataclasses.dataclass
class Admitted:
    """A submission that was let in; `taken` says whether it waits for a tick now."""

    agent: str
    size_bytes: int
    sequence: int = 0
    taken: bool = False


class Admission:
    """Safe to use from several threads."""

    def __init__(
        self,
        per_tick: int,
        per_minute: float,
        waiting_bytes: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the limits.

        Args:
            per_tick: submissions of one agent that may wait.
            per_minute: of one agent, on average.
            waiting_bytes: of all submissions that wait, together.
            clock_s: seconds, monotonic.
        """
        self._per_tick, self._per_minute = per_tick, per_minute
        self._most_bytes = waiting_bytes
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._waiting: list[Admitted] = []
        self._bytes = 0
        self.refused: dict[str, int] = {}
        """By agent: submissions that a limit or a rule turned away."""

    @contextlib.contextmanager
    def admitted(self, agent: str, size_bytes: int) -> Iterator[Admitted]:
        """Lets one submission in, or says why not; what ends without `taken` counts no more.

        Raises:
            errors.OverloadedError: a limit is reached; names it, and when to come again.
        """
        entry = self._enter(agent, size_bytes)
        try:
            yield entry
        except errors.SkillmeshError:
            self._note_refusal(agent)
            raise
        finally:
            with self._lock:
                if entry.taken:
                    self._waiting.append(entry)
                else:
                    self._leave(entry)

    def waiting(self) -> list[Admitted]:
        """Those that the next tick takes."""
        with self._lock:
            return list(self._waiting)

    def settle(self, taken: list[Admitted]) -> None:
        """Ends the wait of what a tick took: `waiting` from before it, once it has ended."""
        gone = {id(entry) for entry in taken}
        with self._lock:
            leaving = [entry for entry in self._waiting if id(entry) in gone]
            self._waiting = [entry for entry in self._waiting if id(entry) not in gone]
            for entry in leaving:
                self._leave(entry)

    def restore(self, agent: str, size_bytes: int, sequence: int = 0) -> None:
        """Counts what waits since before this process began."""
        with self._lock:
            account = self._account(agent)
            account.waiting += 1
            self._bytes += size_bytes
            self._waiting.append(Admitted(agent, size_bytes, sequence, taken=True))

    def _enter(self, agent: str, size_bytes: int) -> Admitted:
        with self._lock:
            account = self._account(agent)
            try:
                self._check(agent, account, size_bytes)
            except errors.OverloadedError:
                self.refused[agent] = self.refused.get(agent, 0) + 1
                raise
            account.tokens -= 1
            account.waiting += 1
            self._bytes += size_bytes
            return Admitted(agent, size_bytes)

    def _check(self, agent: str, account: _Account, size_bytes: int) -> None:
        if account.waiting >= self._per_tick:
            raise errors.OverloadedError(
                f"agent {agent}: {account.waiting} submissions wait for the next tick, and "
                "hierarchy.limits.submissions_per_tick allows no more; send it after the tick"
            )
        if account.tokens < 1:
            wait_s = (1 - account.tokens) * 60 / self._per_minute
            raise errors.OverloadedError(
                f"agent {agent}: more than {self._per_minute:g} submissions a minute "
                f"(hierarchy.limits.submissions_per_minute); send it again in {wait_s:.1f} s"
            )
        # One alone may be larger than all should be together: else it could never be sent.
        if self._bytes and self._bytes + size_bytes > self._most_bytes:
            raise errors.OverloadedError(
                f"agent {agent}: {self._bytes} bytes wait for the next tick, with these "
                f"{size_bytes} more than hierarchy.limits.waiting_mib allows; send it after the "
                "tick"
            )

    def _account(self, agent: str) -> _Account:
        now_s, burst = self._clock_s(), float(self._per_tick * _BURST_TICKS)
        account = self._accounts.setdefault(agent, _Account(burst, now_s))
        gained = (now_s - account.filled_at_s) * self._per_minute / 60
        account.tokens = min(burst, account.tokens + gained)
        account.filled_at_s = now_s
        return account

    def _leave(self, entry: Admitted) -> None:
        self._accounts[entry.agent].waiting -= 1
        self._bytes -= entry.size_bytes

    def _note_refusal(self, agent: str) -> None:
        with self._lock:
            self.refused[agent] = self.refused.get(agent, 0) + 1
