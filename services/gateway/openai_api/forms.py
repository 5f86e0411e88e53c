"""Answers in the forms of OpenAI's two endpoints, whole and in chunks."""

from __future__ import annotations

import abc
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from services.gateway import domain
from services.gateway.openai_api import asking, logprobs


class Form(Protocol):
    """How one answer is told."""

    def whole(self, told: asking.Told) -> dict[str, Any]:
        """The body of an answer."""
        ...

    def chunks(self, part: asking.Part) -> Iterator[dict[str, Any]]:
        """The events of a part of it."""
        ...


class _Form(abc.ABC):
    """What both have in common."""

    whole_object: str
    chunk_object: str
    prefix: str
    _begun = False
    """Whether a chunk was told."""

    def __init__(self, model: str, with_logprobs: bool, tells_usage: bool) -> None:
        """Takes how it was asked.

        Args:
            model: as the request names it.
            with_logprobs: whether they were asked for.
            tells_usage: whether the last chunk tells what was used.
        """
        self._head = {
            "id": f"{self.prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }
        self._with_logprobs, self._tells_usage = with_logprobs, tells_usage

    def whole(self, told: asking.Told) -> dict[str, Any]:
        """The body of an answer."""
        answer = told.whole.answer
        choice = self._choice(answer.text, told.whole.logprobs) | {"finish_reason": answer.finish}
        return {
            **self._head,
            "object": self.whole_object,
            "choices": [choice],
            "usage": told.usage(),
            "skillmesh": told.extras(),
        }

    def chunks(self, part: asking.Part) -> Iterator[dict[str, Any]]:
        """The events of a part of it; those of the last part end with its reason and its usage."""
        # An answer without a word begins like any other: clients learn whose it is from that chunk.
        if part.told is None or part.text or part.logprobs or not self._begun:
            yield self._chunk([self._delta(part.text, part.logprobs)])
            self._begun = True
        if part.told is None:
            return
        last = self._end() | {"finish_reason": part.told.whole.answer.finish}
        yield self._chunk([last]) | {"skillmesh": part.told.extras()}
        if self._tells_usage:
            yield self._chunk([]) | {"usage": part.told.usage()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._head, "object": self.chunk_object, "choices": choices}
        return chunk | {"usage": None} if self._tells_usage else chunk

    @abc.abstractmethod
    def _choice(self, text: str, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]: ...

    @abc.abstractmethod
    def _delta(self, text: str, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]: ...

    @abc.abstractmethod
    def _end(self) -> dict[str, Any]: ...


class Chat(_Form):
    """A chat's."""

    whole_object, chunk_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def _choice(self, text: str, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": self._logprobs(tokens)}

    def _delta(self, text: str, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]:
        role = {} if self._begun else {"role": "assistant"}
        told = {"index": 0, "delta": {**role, "content": text}, "finish_reason": None}
        return told | {"logprobs": self._logprobs(tokens)}

    def _end(self) -> dict[str, Any]:
        return {"index": 0, "delta": {}, "logprobs": None}

    def _logprobs(self, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any] | None:
        return logprobs.of_chat(tokens) if self._with_logprobs else None


class Completion(_Form):
    """A completion's."""

    whole_object = chunk_object = "text_completion"
    prefix = "cmpl-"
    _told_characters = 0

    def _choice(self, text: str, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]:
        told = None
        if self._with_logprobs:
            told = logprobs.of_completion(tokens, self._told_characters)
        self._told_characters += len(text)
        return {"index": 0, "text": text, "logprobs": told}

    def _delta(self, text: str, tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]:
        return self._choice(text, tokens) | {"finish_reason": None}

    def _end(self) -> dict[str, Any]:
        return {"index": 0, "text": "", "logprobs": None}
