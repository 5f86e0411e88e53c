"""How much one key may ask: requests and tokens a minute (token buckets), requests under way.

Tokens are counted when an answer ends, since nobody knows them before: a key whose bucket is empty
waits until it has filled up again to more than nothing. Knows nothing of HTTP but header names.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from services.gateway.openai_api import refusals
from shared import gateway_settings

_MINUTE_S = 60.0
_BUSY_RETRY_S = 1.0


class Bucket:
    """Fills up by so much a minute, and holds no more than that."""

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        """Begins full.

        Args:
            per_minute: how much; 0 for any amount.
            clock: seconds, monotonic.
        """
        self.per_minute, self._clock = per_minute, clock
        self._held, self._at_s = per_minute, clock()

    @property
    def held(self) -> float:
        """What is there now; below 0 where more was used than there was."""
        now = self._clock()
        gained = (now - self._at_s) * self.per_minute / _MINUTE_S
        self._held, self._at_s = min(self.per_minute, self._held + gained), now
        return self._held

    def take(self, amount: float) -> None:
        """Takes something out, whether it is there or not."""
        if self.per_minute:
            self._held = self.held - amount

    def wait_s(self, amount: float) -> float:
        """How long until so much is there; 0 where it is."""
        if not self.per_minute:
            return 0.0
        missing = min(amount, self.per_minute) - self.held
        return max(0.0, missing) * _MINUTE_S / self.per_minute


class _Key:
    def __init__(self, limits: gateway_settings.Limits, clock: Callable[[], float]) -> None:
        self.requests = Bucket(limits.requests_per_minute, clock)
        self.tokens = Bucket(limits.tokens_per_minute, clock)
        self.running = 0

    def headers(self) -> dict[str, str]:
        """As OpenAI names them; of what is limited alone."""
        told: dict[str, str] = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket.per_minute:
                told |= {
                    f"x-ratelimit-limit-{name}": f"{bucket.per_minute:.0f}",
                    f"x-ratelimit-remaining-{name}": f"{max(0, int(bucket.held))}",
                    f"x-ratelimit-reset-{name}": f"{bucket.wait_s(bucket.per_minute):.3f}s",
                }
        return told


class Admission:
    """A request that was let in."""

    def __init__(self, key: _Key) -> None:
        """Takes the key that it counts for."""
        self._key = key
        self.headers = key.headers()
        """What is left after it."""

    def used(self, tokens: int) -> None:
        """Counts tokens of its prompt and its answer."""
        self._key.tokens.take(tokens)


class Limits:
    """The limits of every key."""

    def __init__(
        self, limits: gateway_settings.Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes what one key may ask.

        Args:
            limits: of each key.
            clock: seconds, monotonic.
        """
        self._limits, self._clock = limits, clock
        self._keys: dict[str, _Key] = {}

    @contextlib.contextmanager
    def admitted(self, key: str) -> Iterator[Admission]:
        """Lets a request in for as long as the block lasts.

        Args:
            key: what tells keys apart; of known ones alone, since each is remembered.

        Raises:
            refusals.LimitError: it has to wait, and for how long.
        """
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = _Key(self._limits, self._clock)
        self._check(known)
        known.requests.take(1)
        known.running += 1
        try:
            yield Admission(known)
        finally:
            known.running -= 1

    def _check(self, key: _Key) -> None:
        limits = self._limits
        if key.running >= limits.concurrent:
            raise refusals.LimitError(
                "requests",
                f"Limit of {limits.concurrent} requests under way at once reached; wait for one "
                "to end (gateway.limits.concurrent)",
                _BUSY_RETRY_S,
                key.headers(),
            )
        for kind, bucket in (("requests", key.requests), ("tokens", key.tokens)):
            if wait_s := bucket.wait_s(1.0):
                raise refusals.LimitError(
                    kind,
                    f"Rate limit of {bucket.per_minute:g} {kind} per minute reached; try again in "
                    f"{wait_s:.3f}s (gateway.limits.{kind}_per_minute)",
                    wait_s,
                    key.headers(),
                )
