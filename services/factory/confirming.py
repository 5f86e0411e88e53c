"""Whether the inference node answers with a card that was just published; else it is withdrawn.

A card for questions is asked those that revealed the gap, and must answer right; one of a code base
is asked to go on with a piece of it, and must be the one that answers.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.factory import board, partners, patience
from shared import errors, grading

T = TypeVar("T")

CONFIRM_S = 60.0
"""How long a published card may take until the inference node answers with it."""
_PAUSE_S = 0.25


class Confirming:
    """Asks published cards."""

    def __init__(
        self,
        kept: board.TaskBoard,
        others: partners.Partners,
        step_timeout_s: float,
        confirm_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Takes what it works with.

        Args:
            kept: knows which cards were confirmed before.
            others: the node and the store.
            step_timeout_s: how long a service that is away is waited for.
            confirm_s: how long one question is asked until the new card answers it.
            clock: seconds, monotonic.
        """
        self._board, self._others = kept, others
        self._step_timeout_s, self._confirm_s, self._clock = step_timeout_s, confirm_s, clock

    async def confirm(
        self,
        task_id: str,
        card: str,
        distilled: partners.Distilled,
        followed: str,
        report: partners.OnProgress,
    ) -> None:
        """Asks until the new card answers; see `stages.Stages.confirm`."""
        triggers = distilled.triggers
        try:
            if distilled.code_base is not None:
                await report(0.0, "asking it to go on with a piece of the code")
                await self._until(functools.partial(self._completes, card, distilled.code_base))
            for number, trigger in enumerate(triggers):
                await report(number / len(triggers), f"asking again: {trigger.query}")
                await self._until(functools.partial(self._answers, card, trigger))
        except errors.SkillmeshError as error:
            raise errors.PreconditionError(
                f"{error}; {await self._withdrawn(task_id, card, followed)}"
            ) from error

    async def _until(self, wrong: Callable[[], Awaitable[str]]) -> None:
        """Asks until nothing is wrong.

        Args:
            wrong: says what is, empty for nothing.
        """
        deadline = self._clock() + self._confirm_s
        while told := await wrong():
            if self._clock() > deadline:
                raise errors.PreconditionError(told)
            await asyncio.sleep(_PAUSE_S)

    async def _answers(self, card: str, trigger: partners.Trigger) -> str:
        try:
            reply = await self._others.inference.ask(trigger.query)
        except errors.SkillmeshError as error:
            if not error.retryable:
                raise
            seen = f"no answer ({error})"
        else:
            right = grading.is_right(reply.answer, trigger.expected_answer)
            if reply.card == card and right:
                return ""
            seen = f"{reply.answer!r} from {reply.card or 'the bare base model'}"
        return (
            f"the published card {card} does not answer {trigger.query!r} on the "
            f"inference node: expected {trigger.expected_answer!r}, got {seen}"
        )

    async def _completes(self, card: str, code_base: partners.CodeBase) -> str:
        try:
            reply = await self._others.inference.complete(code_base.probe, card)
        except errors.SkillmeshError as error:
            # Before the node has heard of the card there is none of that name.
            if not (error.retryable or isinstance(error, errors.NotFoundError)):
                raise
            return f"the published card {card} does not complete on the inference node: {error}"
        return "" if reply.card == card else f"{reply.card} answered in place of {card}"

    async def _withdrawn(self, task_id: str, card: str, followed: str) -> str:
        """Withdraws a card that is not confirmed; says what serves now."""
        store = self._others.store
        served = await self._patiently(lambda: store.versions_before(card))
        if not served:
            serving = await self._patiently(lambda: store.serving(card.partition("@")[0]))
            if serving in ("", card):
                return "it is the first version and stays"
            # A factory that was killed had withdrawn it already.
            return f"{serving} serves now"
        before = served[0]
        for one in served:
            # What another task published meanwhile may not be confirmed.
            if one == followed or await self._board.published_card(one) is not None:
                before = one
                break
        serving = await self._patiently(lambda: store.withdraw(f"{task_id}:withdraw", card, before))
        return f"{serving} serves again" if serving == before else f"{serving} serves now"

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patience.patiently(attempt, self._step_timeout_s, self._clock)
