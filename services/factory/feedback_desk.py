"""`FeedbackDesk`: takes what users say of answers, and has learned what is to be learned of it.

Scrubs it, looks whether the caller may see the card, and puts it on record; the queue decides which
task learns it. Knows nothing about protobuf. See docs/adr/0026.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Sequence

import structlog

from services.factory import board, feedback, feedback_book, partners, queue
from shared import errors, scrubbing
from shared.security import callers

_log = structlog.get_logger(__name__)
_PRIVATE = (
    "nothing is learned: the question or its correction holds personal data or a secret, or what "
    "looks like one; put it otherwise"
)


class FeedbackDesk:
    """Takes feedback."""

    def __init__(
        self,
        kept: board.TaskBoard,
        factory: queue.SkillFactory,
        store: partners.Store,
        most_an_hour: int = 0,
        silent_tenants: Collection[str] = (),
        scrub: Callable[[str], str] = scrubbing.scrub,
    ) -> None:
        """Takes what it works with.

        Args:
            kept: tasks and feedback.
            factory: opens tasks.
            store: knows whose cards are.
            most_an_hour: feedback of one tenant that is taken; 0 for any number.
            silent_tenants: those whose questions start no learning.
            scrub: takes personal data and secrets out of a text; called off the event loop.
        """
        self._board, self._factory, self._store = kept, factory, store
        self._most_an_hour, self._scrub = most_an_hour, scrub
        self._silent_tenants = frozenset(silent_tenants)

    async def take(
        self, told: feedback.Feedback, tenants: callers.Tenants = None
    ) -> feedback_book.Outcome:
        """Takes what a user says of an answer.

        Args:
            told: as it came.
            tenants: whose cards the caller may see besides everybody's; None: all.

        Raises:
            errors.AlreadyExistsError: the caller said something else under the same key.
            errors.NotFoundError: there is no such card that the caller may see.
            errors.OverloadedError: the tenant said enough within the last hour.
        """
        given = await asyncio.to_thread(self._scrubbed, told)
        known = await self._board.feedback_outcome(given)
        if known is not None:
            return known
        private = await self._not_everybodys(given, tenants)
        changed = (given.question, given.correction) != (told.question, told.correction)
        reason = ""
        if given.is_right:
            reason = "nothing to learn: the answer is right"
        elif given.tenant in self._silent_tenants:
            reason = f"nothing is learned from {given.tenant} (router.no_learning_tenants)"
        elif given.correction and changed:
            reason = _PRIVATE
        elif private:
            reason = private
        if reason:
            outcome = await self._board.record_feedback(
                given, None, reason, most_an_hour=self._most_an_hour
            )
        else:
            outcome = await self._factory.learn_from(given)
        _log.info(
            "feedback",
            caller=given.caller,
            tenant=given.tenant,
            card=given.card,
            right=given.is_right,
            corrected=bool(given.correction),
            task=outcome.task.id if outcome.task else "",
            reason=outcome.reason,
        )
        return outcome

    async def counts(self, card: str, tenants: callers.Tenants = None) -> feedback.Counts:
        """How often answers were called right and wrong.

        Args:
            card: see `feedback_book.FeedbackBook.counts`.
            tenants: whose cards the caller may see besides everybody's; None: all.

        Raises:
            errors.NotFoundError: it is the card of other tenants.
        """
        if card and tenants is not None:
            _check_visible(card, await self._store.owners(card) or (), tenants)
        return await self._board.feedback_counts(card)

    def _scrubbed(self, told: feedback.Feedback) -> feedback.Feedback:
        correction = self._scrub(told.correction)
        # Two different secrets look the same when they are scrubbed, and would seem to agree.
        answer = self._scrub(told.answer) if correction == told.correction else ""
        return dataclasses.replace(
            told, question=self._scrub(told.question), answer=answer, correction=correction
        )

    async def _not_everybodys(self, given: feedback.Feedback, tenants: callers.Tenants) -> str:
        """Why a card is not learned anew: the factory publishes for everybody."""
        if not given.card:
            return ""
        owners = await self._store.owners(given.card)
        if owners is None:
            raise errors.NotFoundError(f"there is no card {given.card}")
        _check_visible(given.card, owners, tenants)
        if not owners:
            return ""
        return (
            f"nothing is learned: {given.card} is for {', '.join(owners)} alone, and what is "
            "learned here is for everybody; correct it where it was made"
        )


def _check_visible(card: str, owners: Sequence[str], tenants: callers.Tenants) -> None:
    if not callers.may_see(tenants, owners):
        # As if there were none: that there is one is nobody else's business.
        raise errors.NotFoundError(f"there is no card {card}")
