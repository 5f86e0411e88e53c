"""Puts questions to a house, several at once, and says which were answered right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.inference import answering
from shared import grading

Answer = Callable[[answering.Question], Awaitable[answering.Answer]]
_AT_ONCE = 32
"""Questions, as users ask."""


async def are_right(asked: Sequence[tuple[str, str]], answer: Answer) -> list[bool]:
    """Whether each question is answered right.

    Args:
        asked: questions with the right answers.
        answer: who answers.
    """
    found = []
    for at in range(0, len(asked), _AT_ONCE):
        some = asked[at : at + _AT_ONCE]
        answers = await asyncio.gather(
            *(answer(answering.Question(question, no_learning=True)) for question, _ in some)
        )
        found += [
            grading.is_right(told.generation.answer, wanted)
            for told, (_, wanted) in zip(answers, some, strict=True)
        ]
    return found
