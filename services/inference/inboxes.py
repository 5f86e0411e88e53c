"""Pieces of answers on their way from the model's thread to the coroutines that wait for them.

An answer's first piece and its end are told at once; what lies between travels together, a moment
long, since every message is work for the interpreter that the model shares. What the thread says
between two turns of the event loop wakes it once, and what came for an answer until it was looked
at is one piece: on a busy node the loop catches up instead of falling behind.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from services.inference import generations

_REST_S_A_MESSAGE = 0.0015
"""To send one takes a tenth of it: that much of its time the model gives to streams at most."""


class Post:
    """Calls functions in an event loop, in the order in which any thread gave them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float = 0.0) -> None:
        """Takes the loop.

        Args:
            loop: calls them.
            interval_s: what is not urgent waits so long behind the calls before, or longer where
                these are many; 0: nothing waits.
        """
        self.loop = loop
        self._interval_s = interval_s
        self._calls: collections.deque[tuple[Callable[..., Any], tuple[Any, ...]]]
        self._calls = collections.deque()
        self._woken = self._resting = False

    def soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Has it called as soon as may be; nothing happens where the loop has closed."""
        self._calls.append((function, arguments))
        self._wake()

    def later(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Has it called with the next urgent one, or once the interval is over."""
        self._calls.append((function, arguments))
        # Behind the call: whoever ends the rest looks for calls after that.
        if not self._resting:
            self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            # The loop may be closed already when the model notices that it should stop.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # First: what is given from here on wakes the loop again, if only to find nothing.
        self._woken = False
        called = set[Callable[..., Any]]()
        while self._calls:
            function, arguments = self._calls.popleft()
            self.loop.call_soon(function, *arguments)
            called.add(function)
        if self._interval_s and not self._resting:
            self._resting = True
            rest_s = max(self._interval_s, len(called) * _REST_S_A_MESSAGE)
            self.loop.call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._calls:
            self._deliver()


class Inbox:
    """Of one answer."""

    def __init__(self, post: Post) -> None:
        """Takes the way into the loop of whoever waits."""
        self._post = post
        self._began = False
        self._came: asyncio.Queue[generations.Piece | None] = asyncio.Queue()

    def put(self, piece: generations.Piece | None) -> None:
        """Takes a piece from any thread; None: there are no more."""
        urgent = piece is None or not self._began
        self._began = True
        (self._post.soon if urgent else self._post.later)(self._came.put_nowait, piece)

    async def get(self) -> tuple[generations.Piece | None, bool]:
        """All that has come as one piece, None where that is nothing, and whether more may come."""
        came = [await self._came.get()]
        while not self._came.empty():
            came.append(self._came.get_nowait())
        pieces = [piece for piece in came if piece is not None]
        return _together(pieces), len(pieces) == len(came)


def _together(pieces: list[generations.Piece]) -> generations.Piece | None:
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    logprobs = tuple(itertools.chain.from_iterable(piece.logprobs for piece in pieces))
    return generations.Piece("".join(piece.text for piece in pieces), logprobs=logprobs)
