"""`CloudDistiller`: from questions that nobody could answer to a clean set of facts to train on.

Asks the teacher, filters what it says, adds wordings, keeps some of them for the gate. Knows
nothing about gRPC, Flight or training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from services.distiller import distillation, filters, journal, plan, wording
from services.distiller.providers import base
from shared import errors
from shared import settings as config
from shared.cards import manifest
from shared.flight import datasets

_ASKED, _REWORDED = 0.6, 0.95
"""Shares of the progress at the end of the two slow parts."""
_TITLE_WORDS = 8


class Rewords(Protocol):
    """Finds other wordings of a question, see `rewording.Rewording`."""

    async def reword(self, question: str, most: int, others: Sequence[str]) -> list[str]:
        """Up to `most` other wordings, none of them nearer to one of the other questions."""
        ...


@dataclasses.dataclass(frozen=True)
class _Asked:
    pairs: list[datasets.QAPair]
    subject: base.Subject
    reasons: list[str]
    """Why questions may be without an answer."""


class CloudDistiller:
    """Distils one teacher, or a chain of them that looks like one."""

    def __init__(
        self,
        provider: base.CloudProvider,
        kept: journal.Journal,
        settings: config.Distiller,
        rewording: Rewords | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            provider: the teacher.
            kept: remembers answers across restarts.
            settings: sizes and shares.
            rewording: fills up the wordings where the teacher gave too few.
        """
        self._provider = provider
        self._journal = kept
        self._settings = settings
        self._rewording = rewording

    async def distil(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """Makes the facts of one skill; a task that is finished already is not made again.

        Raises:
            errors.InvalidInputError: the request names nothing to learn.
            errors.NotFoundError: the teacher knows nothing about any of it.
            errors.TeacherError: every teacher answered, none usably.
            errors.TeacherUnavailableError: no teacher could be asked; ask again later.
        """
        calls = _checked(request, self._settings, self._provider.queries_a_call)
        finished = self._journal.result(request.task_id)
        if finished is not None:
            return finished
        asked = await self._ask(request.task_id, calls, progress)
        keys = {wording.key(query) for query in request.queries} - {""}
        pairs = filters.unambiguous(filters.merged(filters.valid(asked.pairs)), keys)
        pairs = filters.capped(pairs, keys, self._settings.max_facts)
        pairs = await self._with_more_wordings(pairs, keys, progress)
        share = self._settings.held_out_share
        pairs = [filters.held_out(pair, keys, share) for pair in pairs]
        result = _result(request, pairs, asked)
        earlier = self._journal.skill(result.skill_name)
        if earlier:
            # A new version of a skill must not forget what people asked of the old one.
            pairs = filters.unambiguous(filters.merged([*pairs, *earlier]), keys)
            result = _result(request, filters.capped(pairs, keys, self._settings.max_facts), asked)
        self._journal.keep_result(request.task_id, result)
        return result

    async def _ask(
        self,
        task_id: str,
        calls: Sequence[base.QARequest],
        progress: distillation.ProgressCallback,
    ) -> _Asked:
        """Makes all calls but those that were answered before."""
        found: list[datasets.QAPair] = []
        subject, reasons = base.Subject(), []
        for done, call in enumerate(calls):
            await progress(_ASKED * done / len(calls), f"asking {self._provider.name}")
            pairs = self._journal.answer(task_id, call)
            if pairs is None:
                try:
                    pairs = await self._provider.generate_qa(call)
                except errors.NotFoundError as error:
                    # Not journaled: a document may be added before somebody tries again.
                    reasons.append(str(error))
                    continue
                self._journal.keep_answer(task_id, call, pairs)
            found += pairs
            if not subject.title:
                subject = await self._provider.subject(call, pairs)
        return _Asked(found, subject, reasons or [f"{self._provider.name} has no answer"])

    async def _with_more_wordings(
        self,
        pairs: list[datasets.QAPair],
        keys: set[str],
        progress: distillation.ProgressCallback,
    ) -> list[datasets.QAPair]:
        if self._rewording is None:
            return pairs
        taken = {wording.key(text) for pair in pairs for text in filters.wordings(pair)}
        grown = []
        for done, pair in enumerate(pairs):
            await progress(
                _ASKED + (_REWORDED - _ASKED) * done / len(pairs),
                f"rewording fact {done + 1} of {len(pairs)}",
            )
            missing = self._settings.wordings - len(pair.paraphrases)
            if missing > 0:
                # Some will be those that the pair has already.
                most = self._settings.wordings + len(pair.paraphrases)
                others = [other.question for other in pairs if other is not pair]
                made = await self._rewording.reword(pair.question, most, others)
                # What a teacher said outranks what grammar made of another fact.
                new = [text for text in made if wording.key(text) not in taken][:missing]
                pair = dataclasses.replace(pair, paraphrases=(*pair.paraphrases, *new))
            grown.append(pair)
        # Rewordings of two facts may meet, for instance where both lose what told them apart.
        return filters.unambiguous(filters.valid(grown), keys)


def _result(
    request: distillation.DistilRequest, pairs: Sequence[datasets.QAPair], asked: _Asked
) -> distillation.Distillation:
    answers = {wording.key(text): pair.answer for pair in pairs for text in filters.wordings(pair)}
    queries = dict.fromkeys(query.strip() for query in request.queries if wording.key(query))
    triggers = tuple(
        distillation.Trigger(query, answers[wording.key(query)])
        for query in queries
        if wording.key(query) in answers
    )
    if not pairs or (queries and not triggers):
        raise errors.NotFoundError(
            f"nobody could teach {_about(request)} ({'; '.join(asked.reasons)}): add a document "
            "that answers it to the knowledge folder (distiller.knowledge_dir), or configure "
            "another teacher (evolution.provider_type, evolution.fallbacks) in config.yaml"
        )
    domain = asked.subject.title or request.topic.strip() or _shortened(pairs[0].question)
    teachers = dict.fromkeys(pair.teacher for pair in pairs)
    facts = "1 fact" if len(pairs) == 1 else f"{len(pairs)} facts"
    return distillation.Distillation(
        pairs=tuple(pairs),
        skill_name=manifest.slug(domain),
        domain=domain,
        description=f"{facts} about {domain}, such as: {pairs[0].question} "
        f"{asked.subject.summary}".strip(),
        teacher=", ".join(teachers),
        triggers=triggers,
        unanswered=tuple(query for query in queries if wording.key(query) not in answers),
    )


def _checked(
    request: distillation.DistilRequest, settings: config.Distiller, queries_a_call: int
) -> list[base.QARequest]:
    if not request.task_id:
        raise errors.InvalidInputError("a distillation needs a task_id, its idempotency key")
    if not (any(map(wording.key, request.queries)) or request.topic.strip() or request.document):
        raise errors.InvalidInputError(
            f"task {request.task_id} names nothing to learn: give queries, a topic or a document"
        )
    return plan.calls(request, settings, queries_a_call)


def _about(request: distillation.DistilRequest) -> str:
    if request.queries:
        more = len(request.queries) - 1
        return f"{request.queries[0]!r}" + (f" and {more} more" if more else "")
    return repr(request.topic or request.document)


def _shortened(question: str) -> str:
    return " ".join(question.rstrip("?.! ").split()[:_TITLE_WORDS])
