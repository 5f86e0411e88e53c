"""Decides who answers a question, a card or the bare base model, and has it answered.

The router says which card fits; this module says what that means on a node that may not have the
card, or at a moment when the router is away: the user is always answered. Knows nothing of gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from services.inference import (
    choosing,
    deadlines,
    generations,
    likelihoods,
    memories,
    mixing,
    prompts,
)
from services.inference import sampling as samplings
from shared import answer_signals, errors, grading, rewriting
from shared import inference_settings as config
from shared.cards import manifest as manifests
from shared.models import chat
from shared.security import callers

AUTO, BASE = "auto", "base"
LONGEST_QUERY_CHARACTERS = 8_000
LONGEST_CONVERSATION_CHARACTERS = 200_000
"""Of all messages; the last one is a query."""
ROUTE_DEADLINE_S = 2.0
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Question:
    """What a user asks of this node."""

    query: str = ""
    model: str = ""
    """`auto` or empty: the router decides; `base`; `name` or `name@digest` of a card;
    `specialist_local`: the newest card of a code base, or the bare base where there is none."""
    max_new_tokens: int = 0
    """0 for the default of config.yaml."""
    no_learning: bool = False
    tenants: callers.Tenants = None
    """Whose it is, and whose cards may answer it."""
    deadline_s: float | None = None
    """How long the caller waits; None for ever."""
    sampling: samplings.Sampling = samplings.GREEDY
    """How tokens are chosen, and where the answer ends."""
    max_cards: int = 0
    """That answer together, where several fit; 0 for the default of config.yaml."""
    agent: str = ""
    """Whose memory answers, with the cards; empty: nobody's."""
    messages: tuple[chat.Message, ...] = ()
    """A conversation in place of the query: any system messages first, a user's last."""

    @property
    def routed(self) -> str:
        """What the router is asked: the query, or the user's last message."""
        return self.messages[-1].content if self.messages else self.query

    def read_as(self, rewritten: str = "") -> prompts.Asked:
        """What the model is asked.

        Args:
            rewritten: what it reads in place of what was routed; empty: that.
        """
        if not self.messages:
            return rewritten or self.query
        last = chat.Message(chat.USER, rewritten or self.routed)
        return prompts.Conversation((*self.messages[:-1], last))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A card that the router proposes."""

    card: str
    probability: float
    similarity: float = 0.0
    """Cosine of the question to the nearest one that the card was trained on."""
    reading: str = ""
    """The one that asks the same in other words, else the nearest; empty where none is known."""


@dataclasses.dataclass(frozen=True)
class Routing:
    """What the router says of a question."""

    candidates: tuple[Candidate, ...] = ()
    """Best first."""
    none_probability: float = 1.0
    confidence: float = 0.0
    dissonance: bool = False
    event_id: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer with what is known of how it came about."""

    generation: generations.Generation
    routing: Routing
    rewritten_query: str = ""
    """What the card was asked; empty where it was the question itself."""
    shares: tuple[mixing.Share, ...] = ()
    """The cards that answered, the heaviest first; empty where none did."""
    memory: str = ""
    """`AGENT@VERSION` that took part; empty where none did."""


@dataclasses.dataclass(frozen=True)
class AnswerPiece:
    """A part of an answer; the last one has the whole beside it."""

    text: str
    final: Answer | None = None
    logprobs: tuple[likelihoods.TokenLogprob, ...] = ()
    """Of the tokens that are complete with it, where they were asked for."""


class Engine(generations.Streams, choosing.Engine, Protocol):
    """What answers; `ArrowEngine` is one."""

    def mix_lora(self, shares: Sequence[mixing.Share]) -> str:
        """Makes a mixture of served cards known; returns its key."""
        ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the bare base model answered a question that an event waits for."""

    event_id: str
    query: prompts.Asked
    """What the model was asked, as it was put."""
    signals: answer_signals.AnswerSignals | None
    """None where there is no answer."""
    answer_s: float
    """Since the question came."""


Route = Callable[[str, bool, float, callers.Tenants], Awaitable[Routing]]
"""Asks the router: query, no_learning, deadline in seconds, whose question it is."""
Report = Callable[[Outcome], None]
"""Tells the router how the base answered; never waits."""


class Answering:
    """Answers questions with the best that this node has."""

    def __init__(
        self,
        engine: Engine,
        route: Route,
        rewriting: float | None = None,
        report: Report = lambda outcome: None,
        together: mixing.Together = mixing.ALONE,
        chosen: choosing.Choosing | None = None,
        agents: memories.Memories | None = None,
    ) -> None:
        """Takes the engine and the way to the router.

        Args:
            engine: answers.
            route: asks the router.
            rewriting: a routed question at least this similar (cosine) to one that the card was
                trained on is answered as that one; None: never.
            report: tells the router, after an answer that an event waits for.
            together: when cards answer together, where a question does not say.
            chosen: finds the engine's cards; by default none is of a code base.
            agents: have memories; None: there are none.
        """
        self._agents = agents or memories.NoMemories()
        self._engine = engine
        self._report = report
        self._route = route
        self._rewriting = rewriting
        self._together = together
        self._choosing = chosen or choosing.Choosing(engine)

    async def answer(self, question: Question) -> Answer:
        """Answers as a whole; see `stream`."""
        pieces = self.stream(question)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.final is not None:
                    return piece.final
        raise errors.InternalError("an answer ended without its last piece")

    async def stream(self, question: Question) -> AsyncGenerator[AnswerPiece, None]:
        """Answers piece by piece.

        Raises:
            errors.InvalidInputError: the query is empty or too long, the messages are out of
                order, or the model's name malformed.
            errors.NotFoundError: the card or the agent that the question names is not here.
            errors.SkillmeshError: see `ArrowEngine.stream`.
        """
        _check(question)
        loop = asyncio.get_running_loop()
        came = loop.time()
        deadline = deadlines.Deadline(question.deadline_s)
        routing, rewritten, card = Routing(), "", None
        shares: tuple[mixing.Share, ...] = ()
        if question.agent:
            await self._agents.prepare(question.agent)
        if question.model in ("", AUTO):
            routing = await self._ask_router(question, deadline)
            best = None if routing.dissonance else await self._best(question, routing, deadline)
            if best is not None:
                shares, card = await self._mixed(best, question, routing, deadline)
                # What one card was trained on is only a part of what several are asked.
                if len(shares) == 1:
                    rewritten = rewriting.rewritten(
                        question.routed, best.reading, best.similarity, self._rewriting
                    )
        elif question.model == manifests.SPECIALIST_LOCAL:
            card = await self._choosing.specialist("", deadline.left_s, question.tenants)
        elif question.model != BASE:
            card = self._choosing.named(question.model, question.tenants)
        if card is not None and not shares:
            shares = (mixing.Share(card, 1.0),)
        # Nothing is awaited between the choice of a card and the engine's check that it is there.
        memory = self._agents.compose(question.agent, shares) if question.agent else None
        pieces = self._engine.stream(
            question.read_as(rewritten),
            card if memory is None else memory.key,
            question.max_new_tokens,
            deadline.left_s,
            question.sampling,
            None if memory is None else memory.capture,
        )
        signals = None
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    final = None
                    if piece.final is not None:
                        name = "" if memory is None else memory.name
                        final = Answer(piece.final, routing, rewritten, shares, name)
                        signals = _signals(piece.final)
                        if memory is not None:
                            self._agents.remember(question.agent, memory)
                    yield AnswerPiece(piece.text, final, piece.logprobs)
        finally:
            # After the last piece, and where none comes: the event waits in either case.
            if routing.event_id:
                answer_s = loop.time() - came
                self._report(Outcome(routing.event_id, question.read_as(), signals, answer_s))

    async def _ask_router(self, question: Question, deadline: deadlines.Deadline) -> Routing:
        left_s = deadline.left_s
        deadline_s = ROUTE_DEADLINE_S if left_s is None else min(ROUTE_DEADLINE_S, left_s)
        try:
            return await self._route(
                question.routed, question.no_learning, deadline_s, question.tenants
            )
        except errors.SkillmeshError as error:
            _log.warning("router not reached; the bare base answers", reason=str(error))
            return Routing()

    async def _best(
        self, question: Question, routing: Routing, deadline: deadlines.Deadline
    ) -> Candidate | None:
        """The best candidate on this node; None if only the bare base is left."""
        for place, candidate in enumerate(routing.candidates):
            # Behind the first there are cards about other things, too: one of them answers only if
            # it is likelier to fit than that none does.
            likely = place == 0 or candidate.probability > routing.none_probability
            may = likely and self._choosing.is_for(candidate.card, question.tenants)
            if may and await self._choosing.ready(candidate.card, deadline.left_s):
                return candidate
        if routing.candidates:
            _log.info("card not here; the bare base answers", card=routing.candidates[0].card)
        return None

    async def _mixed(
        self, best: Candidate, question: Question, routing: Routing, deadline: deadlines.Deadline
    ) -> tuple[tuple[mixing.Share, ...], str | None]:
        """Who answers together with the best card, and the key of all.

        That card alone where they can't; nobody and None where it left in the meantime.
        """
        alone = ((mixing.Share(best.card, 1.0),), best.card)
        served = self._engine.served()
        fitting = [
            (one.card, one.probability)
            for one in routing.candidates
            if one.card in served and self._choosing.is_for(one.card, question.tenants)
        ]
        shares = mixing.shares(fitting, self._together, question.max_cards)
        if len(shares) == 1 or shares[0].card != best.card:
            return alone
        try:
            key = self._engine.mix_lora(shares)
            await self._engine.bring_lora(key, deadline.left_s)
        except (errors.OverloadedError, errors.DeadlineError):
            raise
        except errors.SkillmeshError as error:
            _log.warning("cards not mixed; the best one answers", reason=str(error))
        else:
            if all(one.card in self._engine.served() for one in shares):
                return shares, key
        # It may have left while the mixture came.
        return alone if best.card in self._engine.served() else ((), None)


def _signals(found: generations.Generation) -> answer_signals.AnswerSignals | None:
    if found.certainty is None:
        return None
    return answer_signals.AnswerSignals(
        mean_logprob=found.certainty.mean_logprob,
        mean_entropy=found.certainty.mean_entropy,
        tokens=found.certainty.tokens,
        admits_ignorance=grading.admits_ignorance(found.answer),
    )


def _check(question: Question) -> None:
    most = config.MOST_CARDS
    if not 0 <= question.max_cards <= most:
        raise errors.InvalidInputError(
            f"max_cards is {question.max_cards}; give 1 to {most}, or 0 for the default"
        )
    name = "query"
    if question.messages:
        if question.query:
            raise errors.InvalidInputError("query and messages are both given; send one of them")
        chat.check(question.messages)
        name = f"messages[{len(question.messages) - 1}].content"
        whole = sum(len(one.content) for one in question.messages)
        if whole > LONGEST_CONVERSATION_CHARACTERS:
            raise errors.InvalidInputError(
                f"messages have {whole:,} characters together, at most "
                f"{LONGEST_CONVERSATION_CHARACTERS:,} are read; leave out the oldest"
            )
    query = question.routed
    if not query.strip():
        raise errors.InvalidInputError(f"{name} is empty; ask something")
    if len(query) > LONGEST_QUERY_CHARACTERS:
        raise errors.InvalidInputError(
            f"{name} has {len(query):,} characters, at most {LONGEST_QUERY_CHARACTERS:,} are "
            "answered; shorten it"
        )
