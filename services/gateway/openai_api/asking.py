"""Has a question answered for whoever asks it: their limits, their power, what came of it beside.

Knows no endpoint; see `chat` and `completions`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.openai_api import keys, limits, models
from shared import errors

ASK, EMBED = "Inference/Generate", "Router/Embed"
_TASK_WAIT_S = 0.02
"""What an answer waits at most to learn of a task: it is told the event either way."""
_CHARACTERS_A_TOKEN = 4


class Fleet(models.Fleet, Protocol):
    """The inference nodes; `nodes.fleet.Fleet` is them."""

    def stream(
        self, asked: domain.Asked, deadline_s: float | None
    ) -> AsyncGenerator[domain.Piece, None]:
        """Answers piece by piece; closing it frees the node's slot."""
        ...

    async def answer(self, asked: domain.Asked, deadline_s: float | None) -> domain.Whole:
        """Answers as a whole."""
        ...

    async def pin(self, card: str) -> tuple[str, ...]:
        """Keeps a card in memory on all nodes; their addresses."""
        ...

    async def unpin(self, card: str) -> tuple[str, ...]:
        """Lets it go; the addresses of those that serve it."""
        ...


@dataclasses.dataclass(frozen=True)
class Told:
    """An answer with what came of it."""

    whole: domain.Whole
    task_id: str = ""
    """That learns what was not known; empty where none is known yet."""

    def extras(self) -> dict[str, Any]:
        """The field `skillmesh` of an answer."""
        answer = self.whole.answer
        return {
            "card": answer.card or None,
            "cards": [{"card": card, "weight": weight} for card, weight in answer.shares],
            "confidence": answer.confidence,
            "dissonance": answer.dissonance,
            "event_id": answer.event_id or None,
            "task_id": self.task_id or None,
            "read_as": answer.rewritten_query or None,
            "memory": answer.memory or None,
            "node": answer.node or None,
        }

    def headers(self) -> dict[str, str]:
        """The same for whoever reads headers alone; of a name that no header can carry nothing."""
        answer = self.whole.answer
        told = {
            "x-skillmesh-card": answer.card,
            "x-skillmesh-confidence": f"{answer.confidence:.4f}",
            "x-skillmesh-node": answer.node,
        }
        if self.task_id:
            told["x-skillmesh-task"] = self.task_id
        elif answer.event_id:
            told["x-skillmesh-event"] = answer.event_id
        return {name: value for name, value in told.items() if value and value.isascii()}

    def usage(self) -> dict[str, int]:
        """Tokens, counted by the node."""
        answer = self.whole.answer
        return {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.new_tokens,
            "total_tokens": answer.prompt_tokens + answer.new_tokens,
        }


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an answer; the last one has `told`."""

    text: str
    logprobs: tuple[domain.TokenLogprob, ...] = ()
    told: Told | None = None


class Asking:
    """Asks the nodes."""

    def __init__(
        self, fleet: Fleet, services: peers.Peers, limit: limits.Limits, deadline_s: float
    ) -> None:
        """Takes who answers, who knows of learning tasks, and how long an answer may take."""
        self._fleet, self._services = fleet, services
        self._limits, self._deadline_s = limit, deadline_s

    @contextlib.contextmanager
    def admitted(self, asker: keys.Asker, method: str = ASK) -> Any:
        """Lets somebody ask; see `limits.Limits.admitted`.

        Raises:
            errors.ForbiddenError: their role does not allow it.
            refusals.LimitError: they have to wait.
        """
        asker.caller.check_may(method)
        with self._limits.admitted(asker.key) as admission:
            yield admission

    async def whole(
        self, asker: keys.Asker, admission: limits.Admission, asked: domain.Asked
    ) -> Told:
        """An answer as a whole.

        Raises:
            errors.SkillmeshError: as the nodes raise it.
        """
        with asker.on_their_behalf():
            try:
                answered = await self._fleet.answer(asked, self._deadline_s)
            except asyncio.CancelledError:
                # Who does not wait for an answer has had a node work for it all the same.
                admission.used(estimated_tokens(asked))
                raise
            admission.used(answered.answer.prompt_tokens + answered.answer.new_tokens)
            return await self._told(answered)

    async def parts(
        self, asker: keys.Asker, admission: limits.Admission, asked: domain.Asked
    ) -> AsyncGenerator[Part, None]:
        """An answer piece by piece; to be closed by whoever leaves it.

        Raises:
            errors.SkillmeshError: as the nodes raise it.
        """
        answer, pieces, is_left = None, 0, False
        stream = self._fleet.stream(asked, self._deadline_s)
        try:
            async with contextlib.aclosing(stream):
                while True:
                    # Around each step: a generator shares the context of whoever asks it for more.
                    with asker.on_their_behalf():
                        piece = await anext(stream, None)
                    if piece is None:
                        raise errors.UnavailableError("the answer ended before its end; ask again")
                    pieces += 1
                    answer = piece.final
                    if answer is not None:
                        break
                    yield Part(piece.text, piece.logprobs)
        except asyncio.CancelledError:
            is_left = True
            raise
        finally:
            if answer is not None:
                admission.used(answer.prompt_tokens + answer.new_tokens)
            elif pieces or is_left:
                # Nobody told; a piece is a token or a little more.
                admission.used(estimated_tokens(asked) + pieces)
        with asker.on_their_behalf():
            told = await self._told(domain.Whole(answer))
        yield Part(piece.text, piece.logprobs, told)

    async def _told(self, whole: domain.Whole) -> Told:
        if not whole.answer.event_id:
            return Told(whole)
        task = None
        with contextlib.suppress(TimeoutError, errors.SkillmeshError):
            async with asyncio.timeout(_TASK_WAIT_S):
                task = await self._services.factory.find_task(whole.answer.event_id, 0.0)
        return Told(whole, task.id if task is not None else "")


def estimated_tokens(asked: domain.Asked) -> int:
    """Tokens of a prompt by its length, where no node counted them."""
    if isinstance(asked, domain.Continuation):
        texts = [asked.prefix, asked.suffix]
    else:
        texts = [one.content for one in asked.messages]
    return sum(map(len, texts)) // _CHARACTERS_A_TOKEN + 1
