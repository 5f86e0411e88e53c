"""Conversations, and how the chat template of a base model says them.

Knows nothing about cards or requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jinja2

from shared import errors

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
MOST_MESSAGES = 1_000
_PROBE = "f3b1c7"
"""Stands in a rendered chat only where the template says what system messages say."""


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


def check(messages: Sequence[Message]) -> None:
    """Checks who speaks when: any system messages first, then users and assistants, a user last.

    Raises:
        errors.InvalidInputError: names the message's position.
    """
    if not messages:
        raise errors.InvalidInputError("messages is empty; the user's message is missing")
    if len(messages) > MOST_MESSAGES:
        raise errors.InvalidInputError(
            f"messages has {len(messages):,} entries, at most {MOST_MESSAGES:,} are read; leave "
            "out the oldest"
        )
    for at, message in enumerate(messages):
        if message.role not in (SYSTEM, USER, ASSISTANT):
            raise errors.InvalidInputError(
                f"messages[{at}].role is {message.role!r}, expected system, user or assistant"
            )
        if message.role == SYSTEM and at and messages[at - 1].role != SYSTEM:
            raise errors.InvalidInputError(
                f"messages[{at}].role is system behind {messages[at - 1].role}; system messages "
                "come before all others"
            )
    last = len(messages) - 1
    if messages[last].role != USER:
        raise errors.InvalidInputError(
            f"messages[{last}].role is {messages[last].role}; the last message must be the user's"
        )
    if not messages[last].content.strip():
        raise errors.InvalidInputError(f"messages[{last}].content is empty; ask something")


def takes_system(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template says what a system message says.

    Some refuse the role (Gemma's), some pass it over.
    """
    probe = [Message(SYSTEM, _PROBE), Message(USER, "?")]
    try:
        return _PROBE in tokenizer.apply_chat_template(_turns(probe), tokenize=False)
    except (jinja2.TemplateError, TypeError):
        return False


def ids(tokenizer: Any, messages: Sequence[Message], with_system: bool) -> list[int]:
    """Token ids of a conversation, ready for the answer to follow.

    Several system messages are said as one, with an empty line between them. Where the template
    has no place for them they stand in front of the first user's message, likewise.

    Args:
        tokenizer: has a chat template.
        messages: as `check` wants them.
        with_system: see `takes_system`.

    Raises:
        errors.InvalidInputError: the template refuses the conversation.
    """
    told = [one.content for one in messages if one.role == SYSTEM]
    turns = [one for one in messages if one.role != SYSTEM]
    if told and with_system:
        turns = [Message(SYSTEM, "\n\n".join(told)), *turns]
    elif told:
        first = next(at for at, one in enumerate(turns) if one.role == USER)
        turns[first] = Message(USER, "\n\n".join([*told, turns[first].content]))
    try:
        encoded = tokenizer.apply_chat_template(
            _turns(turns), add_generation_prompt=True, return_dict=True
        )
    except jinja2.TemplateError as error:
        raise errors.InvalidInputError(
            f"messages don't fit the base model's chat template: {error}; most want user and "
            "assistant in turn, a user first"
        ) from error
    return list(encoded["input_ids"])


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": one.role, "content": one.content} for one in messages]
