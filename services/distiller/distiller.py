"""`CloudDistiller`: from questions that nobody could answer to a clean set of facts to train on.

Asks the teacher, checks what it says, adds wordings, keeps some of them for the gate. Knows
nothing about gRPC, Flight or training; the checks themselves are in `quality`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from services.distiller import (
    corrections,
    distillation,
    filters,
    journal,
    outcome,
    plan,
    vectors,
    wording,
)
from services.distiller.providers import base
from services.distiller.quality import sieve
from shared import errors
from shared import settings as config
from shared.flight import datasets

_ASKED, _REWORDED = 0.6, 0.95
"""Shares of the progress at the end of the two slow parts."""

_TO_BE_CONTINUED = ("...", "…")
"""A text that begins an answer is no question, and has no other wordings."""


class Rewords(Protocol):
    """Finds other wordings of a question, see `rewording.Rewording`."""

    async def reword(self, question: str, most: int, others: Sequence[str]) -> list[str]:
        """Up to `most` other wordings, none of them nearer to one of the other questions."""
        ...


class CloudDistiller:
    """Distils one teacher, or a chain of them that looks like one."""

    def __init__(
        self,
        provider: base.CloudProvider,
        kept: journal.Journal,
        settings: config.Distiller,
        rewording: Rewords | None = None,
        embed: vectors.AsyncEmbed | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            provider: the teacher.
            kept: remembers answers across restarts.
            settings: sizes and shares.
            rewording: fills up the wordings where the teacher gave too few.
            embed: the project's embedder; without it the meanings of pairs are not compared.
        """
        self._provider = provider
        self._journal = kept
        self._settings = settings
        self._rewording = rewording
        self._embed = embed
        self._sieve = sieve.Sieve(settings, embed)

    async def distil(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """Makes the facts of one skill; a task that is finished already is not made again.

        Raises:
            errors.InvalidInputError: the request names nothing to learn.
            errors.NotFoundError: the teacher knows nothing about any of it.
            errors.TeacherError: every teacher answered, none usably; or too few of its facts are
                fit to train on, or too many are wrong.
            errors.TeacherUnavailableError: no teacher could be asked; ask again later.
        """
        _check(request)
        finished = self._journal.result(request.task_id)
        if finished is None:
            finished = await self.made(request, progress)
            self._journal.keep_result(request.task_id, finished)
        return finished

    async def made(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """As `distil`, for somebody else who keeps the result."""
        _check(request)
        calls = plan.calls(request, self._settings, self._provider.queries_a_call)
        self._journal.take_over(request.task_id, request.retry_of)
        asked = await self._ask(request.task_id, calls, progress)
        keys = {wording.key(query) for query in request.queries} - {""}
        sifted = await self._sieve.sift(
            asked.pairs,
            request.queries or (request.topic,),
            keys,
            lambda call: self._asked_again(request.task_id, call),
            self._provider,
        )
        capped = filters.capped(sifted.kept, keys, self._settings.max_facts)
        rejected = (*sifted.rejected, *capped.rejected)
        self._journal.keep_rejected(request.task_id, rejected)
        outcome.check(
            request,
            asked.pairs,
            capped.kept,
            rejected,
            self._settings,
            self._journal.rejected_path(request.task_id),
        )
        pairs = await self._with_more_wordings(capped.kept, keys, progress)
        pairs = filters.held_out(pairs, keys, self._settings.held_out_share)
        result = outcome.result(request, pairs, asked, rejected)
        earlier = self._journal.skill(result.skill_name)
        if earlier:
            # A new version of a skill must not forget what people asked of the old one.
            told = [pair for pair in earlier if pair.teacher == corrections.TEACHER]
            others = [pair for pair in earlier if pair.teacher != corrections.TEACHER]
            told, pairs = await corrections.applied(told, pairs, self._embed)
            both = filters.unambiguous(filters.merged([*told, *pairs, *others]), keys).kept
            pairs = filters.held_out(
                filters.capped(both, keys, self._settings.max_facts).kept,
                keys,
                self._settings.held_out_share,
            )
            result = outcome.result(request, pairs, asked, rejected)
        return result

    async def _ask(
        self,
        task_id: str,
        calls: Sequence[base.QARequest],
        progress: distillation.ProgressCallback,
    ) -> outcome.Asked:
        """Makes all calls but those that were answered before."""
        found: list[datasets.QAPair] = []
        subject, reasons = base.Subject(), []
        for done, call in enumerate(calls):
            await progress(_ASKED * done / len(calls), f"asking {self._provider.name}")
            try:
                pairs = await self._answer(task_id, call)
            except errors.NotFoundError as error:
                # Not journaled: a document may be added before somebody tries again.
                reasons.append(str(error))
                continue
            found += pairs
            if not subject.title:
                subject = await self._provider.subject(call, pairs)
        return outcome.Asked(found, subject, reasons or [f"{self._provider.name} has no answer"])

    async def _answer(self, task_id: str, call: base.QARequest) -> list[datasets.QAPair]:
        """What the teacher answers to a call; one that was answered before is not made again."""
        pairs = self._journal.answer(task_id, call)
        if pairs is None:
            pairs = await self._provider.generate_qa(call)
            self._journal.keep_answer(task_id, call, pairs)
        return pairs

    async def _asked_again(self, task_id: str, call: base.QARequest) -> list[datasets.QAPair]:
        """As `_answer`, for the judge: what the teacher does not know is an answer, too."""
        call = dataclasses.replace(call, task_id=task_id)
        try:
            return await self._answer(task_id, call)
        except errors.NotFoundError:
            self._journal.keep_answer(task_id, call, [])
            return []

    async def _with_more_wordings(
        self,
        pairs: Sequence[datasets.QAPair],
        keys: set[str],
        progress: distillation.ProgressCallback,
    ) -> list[datasets.QAPair]:
        if self._rewording is None:
            return list(pairs)
        taken = {wording.key(text) for pair in pairs for text in filters.wordings(pair)}
        grown = []
        for done, pair in enumerate(pairs):
            await progress(
                _ASKED + (_REWORDED - _ASKED) * done / len(pairs),
                f"rewording fact {done + 1} of {len(pairs)}",
            )
            missing = self._settings.wordings - len(pair.paraphrases)
            if missing > 0 and not pair.question.endswith(_TO_BE_CONTINUED):
                # Some will be those that the pair has already.
                most = self._settings.wordings + len(pair.paraphrases)
                others = [other.question for other in pairs if other is not pair]
                made = await self._rewording.reword(pair.question, most, others)
                # What a teacher said outranks what grammar made of another fact.
                new = [text for text in made if wording.key(text) not in taken][:missing]
                pair = dataclasses.replace(pair, paraphrases=(*pair.paraphrases, *new))
                pair = filters.distinct(pair, keys)
            grown.append(pair)
        # Rewordings of two facts may meet, for instance where both lose what told them apart.
        return list(filters.unambiguous(filters.valid(grown).kept, keys).kept)


def _check(request: distillation.DistilRequest) -> None:
    if not request.task_id:
        raise errors.InvalidInputError("a distillation needs a task_id, its idempotency key")
    if not (any(map(wording.key, request.queries)) or request.topic.strip() or request.document):
        raise errors.InvalidInputError(
            f"task {request.task_id} names nothing to learn: give queries, a topic or a document"
        )
