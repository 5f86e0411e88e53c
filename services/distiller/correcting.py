"""`Corrector`: distils what people say is right; see docs/adr/0026.

No teacher is asked for the answers. A language model is asked for other wordings of the questions,
and rules fill up what is missing. The facts replace those that they correct: of the card that they
correct, or of the skill that the other questions of the task belong to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence

import structlog

from services.distiller import (
    corrections,
    distillation,
    distiller,
    enlarging,
    filters,
    journal,
    outcome,
    vectors,
    wording,
)
from services.distiller.providers import base
from services.distiller.quality import privacy, verdict
from shared import errors
from shared import settings as config
from shared.cards import manifest as manifests
from shared.flight import datasets

_ANSWERED = 0.6
"""Share of the progress when the other questions were answered."""
_log = structlog.get_logger(__name__)


class Corrector:
    """Distils, corrections included."""

    def __init__(
        self,
        cloud: distiller.CloudDistiller,
        provider: base.CloudProvider,
        kept: journal.Journal,
        settings: config.Distiller,
        get: Callable[[str], Awaitable[bytes]],
        rewording: distiller.Rewords | None = None,
        embed: vectors.AsyncEmbed | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            cloud: distils the questions that nobody corrected.
            provider: the teacher, asked for wordings.
            kept: remembers answers and results across restarts.
            settings: sizes and shares.
            get: fetches a dataset from the card store by its digest.
            rewording: fills up the wordings where the teacher gave too few.
            embed: the project's embedder; without it meanings are not compared.
        """
        self._cloud, self._provider, self._journal = cloud, provider, kept
        self._settings, self._get = settings, get
        self._rewording, self._embed = rewording, embed

    async def distil(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """Makes the facts of one skill; a task that is finished already is not made again.

        Raises:
            errors.PreconditionError: no correction is fit to train on, or the dataset of the card
                that is corrected is gone.
            errors.SkillmeshError: see `distiller.CloudDistiller.distil`.
        """
        if not request.corrections:
            return await self._cloud.distil(request, progress)
        finished = self._journal.result(request.task_id)
        if finished is not None:
            return finished
        self._journal.take_over(request.task_id, request.retry_of)
        sifted = _facts(request)
        told = list(sifted.kept)
        dataset = await self._dataset(request.follows)
        answered = await self._answered(request, progress)
        name, domain = _skill(request, answered, told[0])
        before = [*(answered.pairs if answered else ()), *dataset]
        if request.follows is None and answered is None:
            before = self._journal.skill(name)
        await progress(_ANSWERED, "putting the corrections in their place")
        wrong = {one.question: one.wrong for one in request.corrections if one.wrong}
        told, left = await corrections.applied(told, before, self._embed, wrong)
        queries = (*(one.question for one in request.corrections), *request.queries)
        keys = {wording.key(query) for query in queries} - {""}
        told = await self._with_wordings(request, told, left, keys)
        pairs = filters.unambiguous(filters.merged([*told, *left]), keys).kept
        capped = filters.capped(pairs, keys, self._settings.max_facts)
        rejected = (*sifted.rejected, *capped.rejected)
        if answered is None:
            self._journal.keep_rejected(request.task_id, rejected)
        held_out = filters.held_out(capped.kept, keys, self._settings.held_out_share)
        asked = outcome.Asked(held_out, base.Subject(domain), ["the teacher has no answer"])
        result = outcome.result(
            dataclasses.replace(request, queries=queries), held_out, asked, rejected
        )
        counts = {**(answered.rejected if answered else {}), **result.rejected}
        result = dataclasses.replace(result, skill_name=name, rejected=counts)
        self._journal.keep_result(request.task_id, result)
        return result

    async def _dataset(self, follows: distillation.Followed | None) -> list[datasets.QAPair]:
        """What the card that is corrected was trained on."""
        if follows is None:
            return []
        try:
            return datasets.from_bytes(await self._get(follows.dataset_digest))
        except errors.NotFoundError as error:
            raise errors.PreconditionError(
                f"what the card {follows.skill_name} was trained on is not kept any more, so that "
                "its other answers would be lost; teach what it is about again, then correct it"
            ) from error
        except errors.InvalidInputError as error:
            raise errors.PreconditionError(
                f"the card {follows.skill_name} was not trained on questions and answers, so they "
                f"can't be corrected: {error}"
            ) from error

    async def _answered(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation | None:
        """What teachers say to the questions that nobody corrected; None for nothing."""
        corrected = {wording.key(one.question) for one in request.corrections}
        queries = tuple(one for one in request.queries if wording.key(one) not in corrected)
        if not any(map(wording.key, queries)):
            return None
        others = dataclasses.replace(request, queries=queries, corrections=(), follows=None)

        async def part(share: float, detail: str) -> None:
            await progress(_ANSWERED * share, detail)

        try:
            return await self._cloud.made(others, part)
        except (errors.NotFoundError, errors.TeacherError, errors.TeacherUnavailableError) as error:
            # What people said is learned all the same.
            _log.warning("no answers beside the corrections", reason=str(error))
            return None

    async def _with_wordings(
        self,
        request: distillation.DistilRequest,
        told: Sequence[datasets.QAPair],
        left: Sequence[datasets.QAPair],
        keys: set[str],
    ) -> list[datasets.QAPair]:
        """The corrections in other words, as many as a fact has."""
        said = await self._said(request, told)
        taken = {wording.key(text) for pair in [*told, *left] for text in filters.wordings(pair)}
        grown = []
        for pair in told:
            others = [other.question for other in (*told, *left) if other is not pair]
            missing = self._settings.wordings - len(pair.paraphrases)
            found = [
                text
                for other in said
                if enlarging.same_fact(pair, other)
                for text in filters.wordings(other)
            ]
            if self._rewording is not None and missing > len(found):
                most = self._settings.wordings + len(pair.paraphrases)
                found += await self._rewording.reword(pair.question, most, others)
            fresh = {wording.key(text): text for text in found if wording.key(text) not in taken}
            more = list(fresh.values())[: max(0, missing)]
            taken.update(map(wording.key, more))
            pair = dataclasses.replace(pair, paraphrases=(*pair.paraphrases, *more))
            grown.append(filters.distinct(pair, keys))
        return list(filters.valid(grown).kept)

    async def _said(
        self, request: distillation.DistilRequest, told: Sequence[datasets.QAPair]
    ) -> list[datasets.QAPair]:
        """The corrections as the teacher words them; nothing where it can't be asked."""
        if self._provider.name in self._provider.repeats:
            # It quotes what it has read, and has no words of its own.
            return []
        found, size = list[datasets.QAPair](), self._provider.queries_a_call
        for start in range(0, len(told), size):
            some = told[start : start + size]
            call = base.QARequest(
                topic="",
                queries=tuple(pair.question for pair in some),
                count=len(some),
                wordings=self._settings.wordings,
                passage=corrections.passage(some),
                task_id=request.task_id,
                teacher=request.teacher,
            )
            pairs = self._journal.answer(request.task_id, call)
            if pairs is None:
                try:
                    pairs = await self._provider.generate_qa(call)
                except errors.SkillmeshError as error:
                    # Rules know other wordings, too.
                    _log.warning("teacher not asked for wordings", reason=str(error))
                    break
                self._journal.keep_answer(request.task_id, call, pairs)
            found += filters.valid(privacy.public(pairs).kept).kept
        return found


def _facts(request: distillation.DistilRequest) -> verdict.Sifted:
    """The corrections as pairs, as far as they are fit to train on."""
    newest = {wording.key(one.question): one for one in request.corrections}
    pairs = [corrections.fact(one.question, one.answer) for one in newest.values()]
    valid = filters.valid(pairs)
    public = privacy.public(valid.kept)
    rejected = (*valid.rejected, *public.rejected)
    if not public.kept:
        why = "; ".join(f"{one.pair.question}: {one.detail}" for one in rejected)
        raise errors.PreconditionError(f"no correction is fit to train on: {why}")
    return verdict.Sifted(public.kept, rejected)


def _skill(
    request: distillation.DistilRequest,
    answered: distillation.Distillation | None,
    first: datasets.QAPair,
) -> tuple[str, str]:
    """Name and domain of the card to be."""
    if request.follows is not None:
        return request.follows.skill_name, request.follows.domain
    if answered is not None:
        return answered.skill_name, answered.domain
    domain = outcome.shortened(first.question)
    return manifests.slug(domain), domain
