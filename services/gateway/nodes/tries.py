"""One request's way over the nodes: who is asked next, and when to give up.

Nothing is tried again once a piece of the answer was there: whoever asked has it. What a node
refuses because the request is wrong would be refused everywhere. A full fleet is not asked a second
time, which would only make it fuller (Beyer et al., Site Reliability Engineering, 2016, ch. 22).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from services.gateway import domain
from services.gateway.nodes import choice
from services.gateway.nodes import member as members
from shared import errors

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Fleet(Protocol):
    """What a request needs of the fleet."""

    def known(self) -> Sequence[members.Member]:
        """All nodes."""
        ...

    async def refresh(self) -> None:
        """Asks all nodes how they are; waits for a moment at most."""
        ...


class Tries:
    """The tries of one request."""

    def __init__(
        self,
        fleet: Fleet,
        asked: domain.Asked,
        home: str,
        retries: int,
        deadline_s: float,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
        chance: random.Random,
    ) -> None:
        """Begins its time.

        Args:
            fleet: the nodes.
            asked: what is asked of them.
            home: address of the node whose agents have memories.
            retries: further tries after one that failed.
            deadline_s: for all of them together.
            clock: seconds, monotonic.
            pause: sleeps.
            chance: draws.
        """
        self._fleet, self._asked, self._home = fleet, asked, home
        self._retries, self._deadline_s = retries, deadline_s
        self._clock, self._pause, self._chance = clock, pause, chance
        self._until_s = clock() + deadline_s
        self._tried: set[members.Member] = set()
        self._pause_s = _FIRST_PAUSE_S
        self._retryable: errors.SkillmeshError | None = None
        """The latest failure that will pass."""

    @property
    def left_s(self) -> float:
        """Time that is left; above 0.

        Raises:
            errors.DeadlineError: there is none.
        """
        left_s = self._until_s - self._clock()
        if left_s <= 0:
            raise errors.DeadlineError(
                f"no node answered within {self._deadline_s:g} s"
                + (f"; the last one: {self._retryable}" if self._retryable else "")
            )
        return left_s

    async def next(self) -> members.Member:
        """The node to ask.

        Raises:
            errors.NotFoundError: no node serves the card.
            errors.UnavailableError: none does now, but one will.
            errors.InvalidInputError: the model's name is malformed.
        """
        found = self._pick()
        if found is None:
            # The card may have come since the last look.
            await self._fleet.refresh()
            found = self._pick()
        if found is None:
            raise self._missing()
        return found

    async def failed(self, member: members.Member, error: errors.SkillmeshError) -> None:
        """A node failed before its first piece; returns where the next one is to be asked.

        Raises:
            errors.SkillmeshError: the error for the caller.
        """
        self._tried.add(member)
        if isinstance(error, errors.NotFoundError):
            # Its card is still on its way, or has just gone; an agent may be elsewhere.
            if self._pick() is None:
                raise await self._not_found(error)
        elif not error.retryable or isinstance(error, errors.DeadlineError):
            raise error
        else:
            self._retryable = error
            if not self._retries:
                raise error
            self._retries -= 1
            if self._pick() is None:
                await self._again(error)
        member.retries += 1

    def _pick(self) -> members.Member | None:
        ranks = choice.fitting(self._fleet.known(), self._asked, self._home)
        return choice.pick(ranks, self._tried, self._chance)

    async def _again(self, error: errors.SkillmeshError) -> None:
        """Waits, and lets the nodes be asked that failed."""
        if isinstance(error, errors.OverloadedError):
            raise error
        pause_s = self._pause_s * self._chance.uniform(0.8, 1.2)
        if pause_s >= self.left_s:
            raise error
        await self._pause(pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._tried.clear()

    async def _not_found(self, error: errors.SkillmeshError) -> errors.SkillmeshError:
        if self._retryable is not None:
            return self._retryable
        if not choice.names_card(self._asked.model):
            return error
        await self._fleet.refresh()
        missing = self._missing()
        return missing if missing.retryable else error

    def _missing(self) -> errors.SkillmeshError:
        card, fleet = self._asked.model, self._fleet.known()
        if not any(member.is_reached for member in fleet):
            reasons = "; ".join(f"{one.address}: {one.away or 'not asked yet'}" for one in fleet)
            return errors.UnavailableError(f"no inference node is reached ({reasons}); ask again")
        if any(member.expects(card) for member in fleet):
            return errors.UnavailableError(
                f"card {card} is on its way to a node that has begun anew; ask again"
            )
        return errors.NotFoundError(
            f"card {card} is served by no node; `auto` and `base` always answer"
        )
