"""Which nodes there are: those of config.yaml, and those that the card store hears of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from shared import errors

Listed = Callable[[], Awaitable[Sequence[str]]]
"""Addresses of the nodes that report to the store."""
UNLISTED_S = 15.0
"""So long a node that answers is kept although the store does not list it: one that has begun anew
hears of its nodes within ten seconds."""
_log = structlog.get_logger(__name__)


class Finding:
    """Finds addresses."""

    def __init__(
        self,
        configured: Sequence[str],
        otherwise: str,
        listed: Listed,
        clock: Callable[[], float],
    ) -> None:
        """Takes where to look.

        Args:
            configured: always there.
            otherwise: the only one where there is no other.
            listed: asks the store.
            clock: seconds, monotonic.
        """
        self._configured, self._otherwise = tuple(configured), otherwise
        self._listed, self._clock = listed, clock
        self._seen_s: dict[str, float] = {}
        """When the store listed each one last."""

    async def addresses(self, is_away: Callable[[str], bool]) -> list[str]:
        """All of them now.

        Args:
            is_away: whether a node does not answer: then it goes as soon as it is not listed.
        """
        now_s = self._clock()
        try:
            listed = [address for address in await self._listed() if address]
        except errors.SkillmeshError as error:
            # A store that is away says nothing about any node.
            _log.debug("the card store lists no nodes", reason=str(error))
            self._seen_s = dict.fromkeys(self._seen_s, now_s)
        else:
            self._seen_s |= dict.fromkeys(listed, now_s)
            self._seen_s = {
                address: seen_s
                for address, seen_s in self._seen_s.items()
                if address in listed or (now_s - seen_s < UNLISTED_S and not is_away(address))
            }
        found = list(dict.fromkeys((*self._configured, *self._seen_s)))
        return found or [self._otherwise]
