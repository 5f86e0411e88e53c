"""`CloudDistiller`: from questions that nobody could answer to a clean set of facts to train on.

Asks the teacher, checks what it says, adds wordings, keeps some of them for the gate. Knows
nothing about gRPC, Flight or training; the checks themselves are in `quality`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from services.distiller import distillation, filters, journal, plan, vectors, wording
from services.distiller.providers import base
from services.distiller.quality import sieve, verdict
from shared import errors
from shared import settings as config
from shared.cards import manifest
from shared.flight import datasets

_ASKED, _REWORDED = 0.6, 0.95
"""Shares of the progress at the end of the two slow parts."""
_TITLE_WORDS = 8
_LEAST_WRONG = 2
"""One wrong fact says little about a teacher."""


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
        calls = _checked(request, self._settings, self._provider.queries_a_call)
        finished = self._journal.result(request.task_id)
        if finished is not None:
            return finished
        asked = await self._ask(request.task_id, calls, progress)
        keys = {wording.key(query) for query in request.queries} - {""}
        sifted = await self._sieve.sift(
            asked.pairs,
            request.queries or (request.topic,),
            keys,
            lambda call: self._asked_again(request.task_id, call),
            self._provider.queries_a_call,
        )
        capped = filters.capped(sifted.kept, keys, self._settings.max_facts)
        rejected = (*sifted.rejected, *capped.rejected)
        self._journal.keep_rejected(request.task_id, rejected)
        self._check(request, asked, capped.kept, rejected)
        pairs = await self._with_more_wordings(capped.kept, keys, progress)
        pairs = filters.held_out(pairs, keys, self._settings.held_out_share)
        result = _result(request, pairs, asked, rejected)
        earlier = self._journal.skill(result.skill_name)
        if earlier:
            # A new version of a skill must not forget what people asked of the old one.
            both = filters.unambiguous(filters.merged([*pairs, *earlier]), keys).kept
            pairs = filters.held_out(
                filters.capped(both, keys, self._settings.max_facts).kept,
                keys,
                self._settings.held_out_share,
            )
            result = _result(request, pairs, asked, rejected)
        self._journal.keep_result(request.task_id, result)
        return result

    def _check(
        self,
        request: distillation.DistilRequest,
        asked: _Asked,
        kept: Sequence[datasets.QAPair],
        rejected: Sequence[verdict.Rejected],
    ) -> None:
        """Fails the task where too little is left, or too much was wrong to trust the rest."""
        if not asked.pairs:
            return
        facts = sum(pair.kind is datasets.Kind.FACT for pair in kept)
        where = f"see {self._journal.rejected_path(request.task_id)}"
        if facts < self._settings.least_facts:
            raise errors.TeacherError(
                f"{facts} of {len(asked.pairs)} pairs about {_about(request)} are facts fit to "
                f"train on, {self._settings.least_facts} are needed (distiller.least_facts); "
                f"rejected: {verdict.told(rejected)}; {where}"
            )
        wrong = verdict.wrong_facts(rejected)
        if wrong >= _LEAST_WRONG and wrong > self._settings.most_wrong_share * (wrong + facts):
            raise errors.TeacherError(
                f"{wrong} of {wrong + facts} facts about {_about(request)} are wrong, so that the "
                "others can't be trusted either (distiller.most_wrong_share); "
                f"rejected: {verdict.told(rejected)}; {where}"
            )

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
            try:
                pairs = await self._answer(task_id, call)
            except errors.NotFoundError as error:
                # Not journaled: a document may be added before somebody tries again.
                reasons.append(str(error))
                continue
            found += pairs
            if not subject.title:
                subject = await self._provider.subject(call, pairs)
        return _Asked(found, subject, reasons or [f"{self._provider.name} has no answer"])

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
            if missing > 0:
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


def _result(
    request: distillation.DistilRequest,
    pairs: Sequence[datasets.QAPair],
    asked: _Asked,
    rejected: Sequence[verdict.Rejected],
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
    count = sum(pair.kind is datasets.Kind.FACT for pair in pairs)
    facts = "1 fact" if count == 1 else f"{count} facts"
    return distillation.Distillation(
        pairs=tuple(pairs),
        skill_name=manifest.slug(domain),
        domain=domain,
        description=f"{facts} about {domain}, such as: {pairs[0].question} "
        f"{asked.subject.summary}".strip(),
        teacher=", ".join(teachers),
        triggers=triggers,
        unanswered=tuple(query for query in queries if wording.key(query) not in answers),
        rejected=verdict.counts(rejected),
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
