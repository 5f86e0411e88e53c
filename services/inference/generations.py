"""The answers that are being generated: joins requests to the batch, hands their text out.

Stands between requests (text) and the batch (tokens). Runs in the model's thread; what a request is
told arrives wherever its `tell` takes it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Literal, Protocol

import structlog

from services.inference import (
    batch,
    captures,
    certainties,
    constraints,
    decoding,
    likelihoods,
    prompts,
    vocabularies,
)
from services.inference import sampling as samplings
from shared import inference_settings as config
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models import completion

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Generation:
    """A whole answer."""

    answer: str
    card: str | None
    """`name@digest` of the card that answered; None for the bare base model."""
    prompt_tokens: int
    new_tokens: int
    """Tokens of the answer, without the one that ends it."""
    finish: Literal["stop", "length"]
    """`length`: more was to come, but as many tokens as were allowed are there."""
    certainty: certainties.Certainty | None = dataclasses.field(default=None, compare=False)
    """How sure the base model is of it, with an agent's memory or without; None where a card
    answered. The last bits depend on who else is in the batch, so that it does not count when
    answers are compared."""
    logprobs: tuple[likelihoods.TokenLogprob, ...] = dataclasses.field(default=(), compare=False)
    """Of all tokens, where they were asked for; their last bits depend on the batch, too."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of an answer; the last one has the whole answer beside it."""

    text: str
    final: Generation | None = None
    logprobs: tuple[likelihoods.TokenLogprob, ...] = ()
    """Of the tokens that are complete with it, where they were asked for."""


class Streams(Protocol):
    """Answers questions; `engine.ArrowEngine` does."""

    def stream(
        self,
        query: prompts.Asked,
        card: str | None = None,
        max_new_tokens: int = 0,
        deadline_s: float | None = None,
        sampling: samplings.Sampling = samplings.GREEDY,
        capture: captures.Capture | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answers one question piece by piece; see `ArrowEngine.stream`."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One question with the way back to who asks it."""

    query: prompts.Asked
    card: str | None
    max_new_tokens: int
    sampling: samplings.Sampling
    tell: Callable[[Piece], None]
    """Takes every piece to the asking coroutine."""
    ended: concurrent.futures.Future[Generation | None]
    """The whole answer or why there is none; None where nobody waited any more."""
    stopped: threading.Event
    """Set when nobody waits for the answer any more."""
    capture: captures.Capture | None = None
    """Keeps what is to be remembered of it."""
    measured: bool = False
    """Whether to add up how sure the model is of its tokens."""
    constraint: constraints.Constraint | None = None
    """What the answer must keep to."""


@dataclasses.dataclass(eq=False)
class _Running:
    request: Request
    row: batch.Row
    text: decoding.TextPieces
    watch: samplings.StopWatch
    prompt_ids: list[int]
    end_ids: frozenset[int]
    limit: int
    telling: likelihoods.Telling | None
    """Tells how likely its tokens are, where that was asked for."""
    answer: list[str] = dataclasses.field(default_factory=list)
    told: list[likelihoods.TokenLogprob] = dataclasses.field(default_factory=list)


class Generations:
    """Answers under way; `worker.Steps`."""

    def __init__(
        self, base: bases.BaseModel, manager: managers.LoRAManager, settings: config.Inference
    ) -> None:
        """Begins without any.

        Args:
            base: the model and its tokenizer.
            manager: of the model's cards.
            settings: how many answers, and tokens of them, there are together.
        """
        self._base = base
        self._batch = batch.Batch(base.model, manager)
        self._most_rows, self._most_tokens = settings.batch_rows, settings.batch_tokens
        self._end_ids = decoding.end_ids(base.model, base.tokenizer)
        self._vocabulary = vocabularies.Vocabulary(base.tokenizer)
        self.prompts = prompts.Prompts(base)
        """What is read before an answer."""
        self._joining: list[_Running] = []
        """Their prompts are not read yet."""
        self._running: list[_Running] = []

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return bool(self._running or self._joining)

    @property
    def under_way(self) -> int:
        """Answers that have joined and not ended."""
        return len(self._running) + len(self._joining)

    @property
    def has_room(self) -> bool:
        """Whether another answer may join."""
        rows = self.under_way
        if not rows:
            return True
        # Those that wait for room for their keys stay the next.
        waits = len(self._fitting()) < len(self._joining)
        return rows < self._most_rows and not waits and self._batch.can_grow

    def join(self, request: Request) -> None:
        """Takes an answer in; its prompt is read at the next step, with others' that wait."""
        if request.stopped.is_set():
            request.ended.set_result(None)
            return
        try:
            self._joining.append(self._prepared(request))
        except BaseException as error:
            # Whoever waits gets the reason; the others' answers go on.
            request.ended.set_exception(error)

    def step(self) -> None:
        """Reads the prompts that fit; where there are none, makes one token of every answer."""
        self._let_go()
        if fitting := self._fitting():
            for group in prompts.alike(fitting):
                self._read(group)
            return
        if self._running:
            self._batch.step()
            self._take_tokens(self._running)

    def abandon(self, error: BaseException) -> None:
        """Fails all answers, read or not."""
        failed = [*self._joining, *self._running]
        self._joining, self._running = [], []
        self._batch.clear()
        for running in failed:
            running.request.ended.set_exception(error)

    def _prepared(self, request: Request) -> _Running:
        prompt_ids = self.prompts.ids(request.query, request.max_new_tokens)
        if isinstance(request.query, prompts.Cursor):
            end_ids, behind = completion.end_ids(self._base), completion.lead_ids(self._base)
            repeated = completion.repeated(self._base, request.query.prefix)
        else:
            end_ids, behind, repeated = self._end_ids, (), ""
        room = self.prompts.room(len(prompt_ids))
        if request.capture is not None:
            request.capture.begin(prompt_ids)
        top = request.sampling.top_logprobs
        scores = None if top is None else likelihoods.Scores(top)
        return _Running(
            request=request,
            row=batch.Row(
                request.card,
                samplings.Sampler(request.sampling),
                certainty=certainties.Certainty() if request.measured else None,
                capture=request.capture,
                scores=scores,
                constraint=request.constraint,
            ),
            text=decoding.TextPieces(self._base.tokenizer, behind, repeated),
            watch=samplings.StopWatch(request.sampling.stop),
            prompt_ids=prompt_ids,
            end_ids=end_ids,
            limit=request.max_new_tokens if room is None else min(request.max_new_tokens, room),
            telling=None if scores is None else likelihoods.Telling(self._vocabulary, scores),
        )

    def _let_go(self) -> None:
        """Ends the answers that nobody waits for any more."""
        stopped = [one for one in self._running if one.request.stopped.is_set()]
        self._leave(stopped)
        stopped += [one for one in self._joining if one.request.stopped.is_set()]
        self._joining = [one for one in self._joining if one not in stopped]
        for running in stopped:
            running.request.ended.set_result(None)

    def _fitting(self) -> Sequence[_Running]:
        return prompts.fitting(
            self._joining, len(self._running), self._batch.longest, self._most_tokens
        )

    def _read(self, group: Sequence[_Running]) -> None:
        try:
            self._batch.join([one.row for one in group], [one.prompt_ids for one in group])
        except Exception as error:
            _log.exception("prompts not read", prompts=len(group))
            for running in group:
                running.request.ended.set_exception(error)
            if self._running and not self._batch.rows:
                raise
            return
        finally:
            # Not before: other threads ask how many are under way while a prompt is read.
            self._joining = [one for one in self._joining if one not in group]
        self._running += group
        self._take_tokens(group)

    def _take_tokens(self, several: Iterable[_Running]) -> None:
        """Hands out what rows' latest tokens complete; ends the answers that they end."""
        ended: list[tuple[_Running, Generation | Exception]] = []
        for running in several:
            try:
                finish = self._handed_out(running)
                if finish is not None:
                    ended.append((running, self._final(running, finish)))
            except Exception as error:
                # It concerns this answer alone; the others go on.
                ended.append((running, error))
        self._leave([running for running, _ in ended])
        for running, found in ended:
            if isinstance(found, Exception):
                running.request.ended.set_exception(found)
            else:
                running.request.ended.set_result(found)

    def _handed_out(self, running: _Running) -> Literal["stop", "length"] | None:
        """Why the answer ends with its latest token; None where it goes on."""
        if running.row.error is not None:
            raise running.row.error
        if running.row.token in running.end_ids:
            return "stop"
        text = running.text.add(running.row.token)
        if running.telling is not None:
            running.telling.add(text)
        self._hand_out(running, running.watch.add(text))
        if running.watch.stopped:
            return "stop"
        constraint = running.row.constraint
        if constraint is not None and constraint.ended:
            return "stop"
        return "length" if running.text.tokens >= running.limit else None

    def _hand_out(self, running: _Running, text: str) -> None:
        if not text:
            return
        told = () if running.telling is None else running.telling.handed_out(text)
        running.answer.append(text)
        running.told += told
        running.request.tell(Piece(text, logprobs=told))

    def _final(self, running: _Running, finish: Literal["stop", "length"]) -> Generation:
        """The whole answer, after what was held back of it was handed out."""
        rest, telling = running.text.rest(), running.telling
        if telling is not None:
            telling.read(rest)
        self._hand_out(running, running.watch.add(rest))
        self._hand_out(running, running.watch.rest())
        if telling is not None and (left := telling.rest(running.watch.stopped)):
            running.told += left
            running.request.tell(Piece("", logprobs=left))
        return Generation(
            answer="".join(running.answer),
            card=running.request.card,
            prompt_tokens=len(running.prompt_ids),
            new_tokens=running.text.tokens,
            finish=finish,
            certainty=running.row.certainty,
            logprobs=tuple(running.told),
        )

    def _leave(self, several: Sequence[_Running]) -> None:
        if not several:
            return
        # First the batch: where that fails these answers are among those to be abandoned.
        self._batch.leave([running.row for running in several])
        self._running = [one for one in self._running if one not in several]
