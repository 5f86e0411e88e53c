"""Which of the cards that this node serves a request means by the model that it names.

Knows nothing about questions, completions or the router.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from services.inference import deadlines
from shared import errors, repositories
from shared.cards import manifest as manifests
from shared.security import callers

OfRoute = Callable[[str], Sequence[str]]
"""Keys of the served cards of a route, the newest first."""
TenantsOf = Callable[[str], Sequence[str] | None]
"""Whose a served card is, by its key; empty: everybody's; None: that is not known."""
_LATEST = "latest"
_MOST_TRIED = 3
"""Cards of code bases, of which those before can't be had: whoever types does not wait for more."""
_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What serves cards; `ArrowEngine` is one."""

    def served(self) -> list[str]:
        """Keys of the cards that requests may choose, in the order of their coming."""
        ...

    async def bring_lora(self, key: str, deadline_s: float | None = None) -> None:
        """Returns when a served card is in memory."""
        ...


class Choosing:
    """Finds cards by name, and those of code bases by their route."""

    def __init__(
        self,
        engine: Engine,
        of_route: OfRoute = lambda route: (),
        tenants_of: TenantsOf = lambda key: (),
    ) -> None:
        """Takes what serves cards.

        Args:
            engine: serves them.
            of_route: tells the cards of a route; by default none has one.
            tenants_of: tells whose a card is; by default all are everybody's.
        """
        self._engine = engine
        self._of_route, self._tenants_of = of_route, tenants_of

    def is_for(self, card: str, tenants: callers.Tenants) -> bool:
        """Whether a card may answer whoever has these tenants; no card whose owners are unknown."""
        if tenants is None:
            return True
        owners = self._tenants_of(card)
        return owners is not None and callers.may_see(tenants, owners)

    def named(self, reference: str, tenants: callers.Tenants = None) -> str:
        """The key of a card by `name`, `name@digest` or `name@alias`.

        Raises:
            errors.InvalidInputError: the reference has another form.
            errors.NotFoundError: no such card is served, or not for these tenants.
        """
        name, selector = manifests.split_reference(reference)
        found = [
            key
            for key in self._engine.served()
            if key.partition("@")[0] == name
            and selector in (_LATEST, key.partition("@")[2])
            and self.is_for(key, tenants)
        ]
        if not found:
            raise errors.NotFoundError(
                f"card {reference} is not served by this node; GetNodeStatus lists those that "
                "are, `auto` and `base` always answer"
            )
        return found[-1]

    async def specialist(
        self, path: str, deadline_s: float | None, tenants: callers.Tenants = None
    ) -> str | None:
        """The card of a code base, in memory; None where the bare base is left.

        Where a card can't be had the next one goes.

        Args:
            path: of a file: the card of a repository whose folder it names goes first, the
                innermost of several; then the newest.
            deadline_s: how long it may take to come into memory.
            tenants: of the caller.

        Raises:
            errors.OverloadedError: too many requests wait for their cards.
            errors.DeadlineError: it was not there in time.
        """
        found = self._of_route(manifests.SPECIALIST_LOCAL)
        cards = [card for card in found if self.is_for(card, tenants)]
        if not cards:
            return None
        # Of two versions that are served the newer one.
        by_name = {key.partition("@")[0]: key for key in reversed(cards)}
        folders = pathlib.PureWindowsPath(path).parents
        names = [repositories.card_of(repositories.name_of(one)) for one in folders if one.name]
        named = [by_name[name] for name in names if name in by_name]
        deadline = deadlines.Deadline(deadline_s)
        for card in [*dict.fromkeys((*named, *cards))][:_MOST_TRIED]:
            if await self.ready(card, deadline.left_s):
                return card
        return None

    async def ready(self, card: str, deadline_s: float | None) -> bool:
        """Whether a card is served and in memory, now and until something is awaited.

        Raises:
            errors.OverloadedError: too many requests wait for their cards.
            errors.DeadlineError: it was not there in time.
        """
        if card not in self._engine.served():
            return False
        try:
            await self._engine.bring_lora(card, deadline_s)
        except (errors.OverloadedError, errors.DeadlineError):
            raise
        except errors.SkillmeshError as error:
            _log.warning("card can't come into memory", card=card, reason=str(error))
            return False
        # It may have been replaced by a newer one while it came.
        return card in self._engine.served()
