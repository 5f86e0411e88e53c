"""Who is signed in: tokens in this process's memory, found by a key in a signed cookie.

A token is typed once and never leaves the server again; a restart forgets it. Every call is made
with it (`access.on_behalf_of`), so that only the services decide what its role may do. What stands
here decides which buttons are shown, and no more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Iterator

from shared import errors
from shared.rpc import access
from shared.security import callers

_MOST = 10_000
"""Sessions kept; the one that was opened first goes for a new one."""


@dataclasses.dataclass(frozen=True)
class Session:
    """One person at the console."""

    caller: callers.Caller
    authorization: str = dataclasses.field(default="", repr=False)
    """The header of their calls; empty where nobody needs one."""
    until_s: float = float("inf")
    """Monotonic time; from then on they have to sign in again."""

    def may(self, method: str) -> bool:
        """Whether their role may make a call, such as `CardStore/Revoke`."""
        try:
            self.caller.check_may(method)
        except errors.ForbiddenError:
            return False
        return True

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Makes the calls within theirs."""
        with access.on_behalf_of(self.authorization):
            yield


OPEN = Session(callers.ANYBODY)
"""Everybody's, where no tokens are configured."""


class Sessions:
    """All who are signed in."""

    def __init__(self, admitted: callers.Callers, lifetime_s: float) -> None:
        """Takes who may come in, and for how long one token typed is enough."""
        self._admitted = admitted
        self._lifetime_s = lifetime_s
        self._open: dict[str, Session] = {}

    def open(self, token: str) -> str:
        """The key of a new session.

        Raises:
            errors.UnauthenticatedError: nobody has that token.
        """
        authorization = callers.header(token.strip())
        caller = self._admitted.identify(authorization)
        while len(self._open) >= _MOST:
            del self._open[next(iter(self._open))]
        key = secrets.token_urlsafe(32)
        until_s = time.monotonic() + self._lifetime_s
        self._open[key] = Session(caller, authorization, until_s)
        return key

    def find(self, key: str) -> Session | None:
        """The session of a key; None where it is unknown, too old, or its token was withdrawn."""
        found = self._open.get(key)
        if found is None:
            return None
        try:
            if time.monotonic() < found.until_s:
                caller = self._admitted.identify(found.authorization)
                return dataclasses.replace(found, caller=caller)
        except errors.UnauthenticatedError:
            pass
        self.close(key)
        return None

    def close(self, key: str) -> None:
        """Forgets a session."""
        self._open.pop(key, None)
