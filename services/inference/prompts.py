"""Token ids of what is asked, within the model's context, and which prompts are read together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from services.inference import decoding
from shared import errors
from shared.models import base as bases
from shared.models import chat, completion

_MOST_READ_TOKENS = 4_096
"""Of the text around a cursor, however large the context: the others' answers wait while it is
read, and what is further away tells little."""
_MOST_CHARACTERS_A_TOKEN = 16
"""More of a file than would fill the context is not cut into tokens."""
_MOST_TOKENS_TOGETHER = 2048
_LEAST_ALIKE = 0.75
"""Tokens of the shortest prompt of a group over those of the longest."""


@dataclasses.dataclass(frozen=True)
class Cursor:
    """A place in a text at which something is to be written."""

    prefix: str
    """The text before it."""
    suffix: str = ""
    """The text behind it."""


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns, of which the next one is to be said."""

    messages: tuple[chat.Message, ...]
    """As `chat.check` wants them."""


Asked = str | Conversation | Cursor
"""A question, a conversation that ends in one, or a place at which to go on."""


class Prompts:
    """Of one base model."""

    def __init__(self, base: bases.BaseModel) -> None:
        """Takes the model and its tokenizer."""
        self._base = base
        self.context_tokens = decoding.context_tokens(base.model)
        """For prompt and answer together; None where the model does not say."""

    def room(self, prompt_tokens: int) -> int | None:
        """Tokens that are left behind a prompt, at least one; None where there is no limit.

        Raises:
            errors.InvalidInputError: none is left.
        """
        if self.context_tokens is None:
            return None
        if prompt_tokens >= self.context_tokens:
            raise errors.InvalidInputError(
                f"the text has {prompt_tokens:,} tokens; the context of base model "
                f"{self._base.id} has {self.context_tokens:,}, the answer included: shorten it"
            )
        return self.context_tokens - prompt_tokens

    def ids(self, asked: Asked, max_new_tokens: int) -> list[int]:
        """The tokens that are read before the first one of an answer.

        Args:
            asked: of the text around a cursor as much is read as leaves room for what is to come.
            max_new_tokens: how much that may be.

        Raises:
            errors.InvalidInputError: messages that no context of this length could hold.
        """
        if isinstance(asked, Cursor):
            return self._around(asked, max_new_tokens)
        if isinstance(asked, str):
            return self._base.prompt_ids(asked)
        characters = sum(len(one.content) for one in asked.messages)
        if self.context_tokens and characters > self.context_tokens * _MOST_CHARACTERS_A_TOKEN:
            # Cutting it into tokens would hold up all others, to no end.
            raise errors.InvalidInputError(
                f"messages have {characters:,} characters together, more than the "
                f"{self.context_tokens:,} tokens of base model {self._base.id} can say; leave out "
                "the oldest"
            )
        return self._base.chat_ids(asked.messages)

    def _around(self, cursor: Cursor, max_new_tokens: int) -> list[int]:
        context, most_tokens = self.context_tokens, _MOST_READ_TOKENS
        if context is not None:
            most_tokens = min(most_tokens, context - min(max_new_tokens, context // 2))
        most_characters = most_tokens * _MOST_CHARACTERS_A_TOKEN
        near = cursor.prefix[-most_characters:], cursor.suffix[:most_characters]
        return list(completion.prompt_ids(self._base, *near, most_tokens))


class Reading(Protocol):
    """An answer whose prompt is to be read."""

    prompt_ids: list[int]


R = TypeVar("R", bound=Reading)


def fitting(waiting: Sequence[R], rows: int, longest: int, most_tokens: int) -> Sequence[R]:
    """The first of those that wait, as many as there is room for; one always fits alone.

    Args:
        waiting: in the order of their coming, which they keep.
        rows: answers that are there.
        longest: tokens of the longest of these.
        most_tokens: of all rows, each padded to the longest.
    """
    for place, one in enumerate(waiting):
        rows, longest = rows + 1, max(longest, len(one.prompt_ids))
        if rows > 1 and rows * longest > most_tokens:
            return waiting[:place]
    return waiting


def alike(joining: Iterable[R]) -> list[list[R]]:
    """Groups whose prompts are read together: padding is computed, too, and memory is finite."""
    groups: list[list[R]] = []
    for one in sorted(joining, key=lambda one: len(one.prompt_ids), reverse=True):
        length = len(one.prompt_ids)
        if groups:
            longest = len(groups[-1][0].prompt_ids)
            fits = (len(groups[-1]) + 1) * longest <= _MOST_TOKENS_TOGETHER
            if fits and length >= _LEAST_ALIKE * longest:
                groups[-1].append(one)
                continue
        groups.append([one])
    return groups
