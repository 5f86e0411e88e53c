"""More wordings for a finished distillation: what the factory asks for when a draft fails the gate.

The facts and the wordings kept from training stay, so that the next draft meets the same gate. The
teacher is asked again for the facts that were answered wrong, with twice the wordings; rewordings
without a teacher fill up what is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import structlog

from services.distiller import (
    corrections,
    delivery,
    distillation,
    distiller,
    filters,
    journal,
    wording,
)
from services.distiller.providers import base
from services.distiller.quality import copies, language, privacy
from shared import errors, grading
from shared import settings as config
from shared.flight import datasets

_TIMES = 2
"""So many times the usual wordings."""
_ASKED = 0.5
"""Share of the progress when the teacher was asked."""
_log = structlog.get_logger(__name__)


class Enlarger:
    """Distils, and enlarges what was distilled."""

    def __init__(
        self,
        distils: delivery.Distils,
        provider: base.CloudProvider,
        kept: journal.Journal,
        settings: config.Distiller,
        rewording: distiller.Rewords | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            distils: makes distillations that enlarge nothing.
            provider: the teacher.
            kept: remembers answers and results across restarts.
            settings: how many wordings are usual.
            rewording: fills up the wordings where the teacher gave too few.
        """
        self._distils, self._provider, self._journal = distils, provider, kept
        self._wordings = _TIMES * settings.wordings
        self._languages = settings.languages
        self._rewording = rewording

    async def distil(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """Makes a distillation; a task that is finished already is not made again.

        Raises:
            errors.NotFoundError: the task that is to be enlarged was not distilled here.
            errors.SkillmeshError: see `distiller.CloudDistiller.distil`.
        """
        if not request.of_task:
            return await self._distils.distil(request, progress)
        finished = self._journal.result(request.task_id)
        if finished is not None:
            return finished
        before = self._journal.result(request.of_task)
        if before is None:
            raise errors.NotFoundError(
                f"task {request.of_task} was not distilled here; distil it before enlarging it"
            )
        weak = {wording.key(question) for question in request.weak}
        places = [
            at
            for at, pair in enumerate(before.pairs)
            if not weak or any(wording.key(text) in weak for text in filters.wordings(pair))
        ]
        told = await self._told(request, [before.pairs[at] for at in places], progress)
        told = self._fit(told, before.pairs)
        pairs = list(before.pairs)
        for done, at in enumerate(places):
            await progress(
                _ASKED + (1 - _ASKED) * done / len(places),
                f"rewording fact {done + 1} of {len(places)}",
            )
            pairs[at] = await self._grown(pairs, at, told)
        result = dataclasses.replace(before, pairs=tuple(pairs))
        self._journal.keep_result(request.task_id, result)
        return result

    async def _told(
        self,
        request: distillation.DistilRequest,
        weak: Sequence[datasets.QAPair],
        progress: distillation.ProgressCallback,
    ) -> list[datasets.QAPair]:
        """What the teacher says to the weak questions now; nothing where it can't be asked."""
        found, size = list[datasets.QAPair](), self._provider.queries_a_call
        by_teacher: dict[str, list[datasets.QAPair]] = {}
        for pair in weak:
            by_teacher.setdefault(pair.teacher, []).append(pair)
        calls = [
            (teacher, asked[start : start + size])
            for teacher, asked in by_teacher.items()
            for start in range(0, len(asked), size)
        ]
        for at, (teacher, some) in enumerate(calls):
            # What a person answered, a teacher is told.
            by_person = teacher == corrections.TEACHER
            await progress(_ASKED * at / len(calls), f"asking {self._provider.name} again")
            call = base.QARequest(
                topic="",
                queries=tuple(pair.question for pair in some),
                count=len(some),
                wordings=self._wordings,
                passage=corrections.passage(some) if by_person else "",
                task_id=request.of_task,
                teacher="" if by_person else teacher,
            )
            pairs = self._journal.answer(request.task_id, call)
            if pairs is None:
                try:
                    pairs = await self._provider.generate_qa(call)
                except errors.NotFoundError:
                    # Not journaled: another time it may know.
                    continue
                except errors.SkillmeshError as error:
                    # What is at hand can still be reworded.
                    _log.warning("teacher not asked for more wordings", reason=str(error))
                    break
                self._journal.keep_answer(request.task_id, call, pairs)
            found += pairs
        return found

    def _fit(
        self, told: Sequence[datasets.QAPair], before: Sequence[datasets.QAPair]
    ) -> list[datasets.QAPair]:
        """What the teacher said that is usable, not private, and in the language of the facts."""
        asked = " ".join(text for pair in before for text in filters.wordings(pair))
        languages = self._languages or language.spoken([asked])
        public = privacy.public(filters.valid(told).kept).kept
        return list(language.expected(public, languages).kept)

    async def _grown(
        self, pairs: Sequence[datasets.QAPair], at: int, told: Sequence[datasets.QAPair]
    ) -> datasets.QAPair:
        """One pair with more wordings to train on; none is that of another, or held out."""
        pair, answer = pairs[at], wording.key(pairs[at].answer)
        held_out = [
            text
            for other in pairs
            if wording.key(other.answer) == answer
            for text in other.held_out
        ]
        taken = {_words(text) for other in pairs for text in filters.wordings(other)}
        more: dict[str, str] = {}

        def take(texts: Sequence[str]) -> None:
            for text in texts:
                if len(pair.paraphrases) + len(more) >= self._wordings:
                    return
                known = _words(text) in taken or len(text) > filters.LONGEST_CHARACTERS
                if not known and not copies.near(text, held_out, copies.NEAR_HELD_OUT):
                    more.setdefault(_words(text), text)

        for other in told:
            if same_fact(pair, other):
                take(filters.wordings(other))
        if self._rewording is not None:
            others = [other.question for other in pairs if other is not pair]
            most = self._wordings + len(pair.paraphrases)
            take(await self._rewording.reword(pair.question, most, others))
        return dataclasses.replace(pair, paraphrases=(*pair.paraphrases, *more.values()))


def same_fact(pair: datasets.QAPair, other: datasets.QAPair) -> bool:
    """Whether another pair asks for the same and answers the same."""
    own = {wording.key(text) for text in filters.wordings(pair)}
    asks_the_same = any(wording.key(text) in own for text in filters.wordings(other))
    return asks_the_same and (
        grading.is_right(other.answer, pair.answer) or grading.is_right(pair.answer, other.answer)
    )


def _words(text: str) -> str:
    """Equal for texts of the same words in any order: such a wording is hardly another one."""
    return " ".join(sorted(wording.key(text).split()))
