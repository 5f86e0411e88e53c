"""Asks the bare base model an answered question a few more times, and adds what that tells.

Stands between an answer and its report to the router. What it costs is paid after the user has the
answer, by one question at a time, and never while somebody waits for the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from services.inference import answering, deadlines, generations, meanings, prompts
from services.inference import sampling as samplings
from shared import answer_signals, errors

REST_S = 0.5
"""The answer leaves first: the model's thread would take processor time from it."""
LONGEST_TOKENS = 48
"""Of a sample; what an answer says stands at its beginning."""
_log = structlog.get_logger(__name__)

Embed = Callable[[Sequence[str]], Awaitable[meanings.Vectors]]
"""Unit vectors of texts, (texts, dimension); raises `errors.SkillmeshError` where it can't."""
Report = Callable[[str, answer_signals.AnswerSignals | None], None]
"""Tells the router: id of the event, signals or None; never waits."""


class Engine(generations.Streams, Protocol):
    """What is asked; `ArrowEngine` is one."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another request would be answered at once."""
        ...


class SemanticEntropy:
    """Samples for one answer at a time; those that come meanwhile go without, and are counted."""

    def __init__(
        self,
        engine: Engine,
        embed: Embed,
        report: Report,
        samples: int,
        within_s: float,
        rest_s: float = REST_S,
    ) -> None:
        """Takes the model and the way to the router.

        Args:
            engine: answers.
            embed: asks the router for vectors.
            report: tells it how the base answered.
            samples: answers for each question; 0: none, reports go on at once.
            within_s: from the question on, until its report must have left.
            rest_s: between the answer and the first sample.
        """
        self._engine, self._embed, self._report = engine, embed, report
        self._samples, self._within_s, self._rest_s = samples, within_s, rest_s
        self._under_way: asyncio.Task[None] | None = None
        self.sampled = 0
        """Answers whose semantic entropy was found."""
        self.dropped = 0
        """Answers that went without it."""

    async def close(self) -> None:
        """Gives up the sampling under way; the report of its answer goes on without."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    def report(self, outcome: answering.Outcome) -> None:
        """Reports an answer, at once or once it is sampled; never waits. An `answering.Report`."""
        if not self._samples or outcome.signals is None:
            self._report(outcome.event_id, outcome.signals)
        elif self._under_way is not None:
            self.dropped += 1
            self._report(outcome.event_id, outcome.signals)
        else:
            self._under_way = asyncio.create_task(self._sampled(outcome, outcome.signals))
            self._under_way.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way = None

    async def _sampled(
        self, outcome: answering.Outcome, signals: answer_signals.AnswerSignals
    ) -> None:
        try:
            async with deadlines.Deadline(self._within_s - outcome.answer_s).limit():
                await asyncio.sleep(self._rest_s)
                entropy = await self._entropy(outcome.query)
            signals = dataclasses.replace(signals, semantic_entropy=entropy)
            self.sampled += 1
        except errors.SkillmeshError as error:
            self.dropped += 1
            _log.info("answer not sampled", event_id=outcome.event_id, reason=str(error))
        except Exception:
            self.dropped += 1
            _log.exception("answer not sampled", event_id=outcome.event_id)
        finally:
            self._report(outcome.event_id, signals)

    async def _entropy(self, query: prompts.Asked) -> float:
        # One after the other: others' answers share the model with one sample at most.
        answers = [await self._sample(query, seed) for seed in range(self._samples)]
        texts, wordings = meanings.wordings(answers)
        if len(texts) == 1:
            return 0.0
        # An answer without a word has no vector worth comparing; it means nothing else.
        worded = [place for place, text in enumerate(texts) if text.strip()]
        vectors_W_D = await self._embed([texts[place] for place in worded])
        found = meanings.meanings([texts[place] for place in worded], vectors_W_D)
        of_wording = dict(zip(worded, found, strict=True))
        return meanings.entropy([of_wording.get(place, -1) for place in wordings])

    async def _sample(self, query: prompts.Asked, seed: int) -> str:
        if not self._engine.has_room:
            raise _busy()
        # The same seeds each time, so that a question has the same entropy when asked again.
        sampling = samplings.Sampling(temperature=1.0, seed=seed)
        pieces = self._engine.stream(query, None, LONGEST_TOKENS, None, sampling)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.final is not None:
                    return piece.final.answer
                if self._engine.waiting:
                    raise _busy()
        raise errors.InternalError("a generation ended without its last piece")


def _busy() -> errors.OverloadedError:
    return errors.OverloadedError("others wait for the model, and go first")
