"""What the router takes: questions, cards and vectors that can be compared, and nothing else.

Everything else is an error that names what is wrong: a text that no embedder reads would fail those
of others in its batch, and a vector that is no number would compare as if it meant something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence

import numpy as np
import structlog

from services.router import profile
from shared import errors

LONGEST_QUERY_CHARACTERS = 8_000
MOST_CANDIDATES = 1_000
MOST_EXAMPLES = 1_000
"""Example questions of one card, and statements; of more, so many are taken evenly."""
_LONGEST_NAMED = 80
_log = structlog.get_logger(__name__)


def check_request(query: str, top_k: int, threshold: float) -> None:
    """Checks what is asked of the router.

    Raises:
        errors.InvalidInputError: names the argument that is wrong, and how.
    """
    if not isinstance(query, str) or not query.strip():
        raise errors.InvalidInputError("query is empty; send a question")
    if len(query) > LONGEST_QUERY_CHARACTERS:
        raise errors.InvalidInputError(
            f"query has {len(query):,} characters, at most {LONGEST_QUERY_CHARACTERS:,} are "
            "routed; send the question without its attachments"
        )
    if not _is_encodable(query):
        raise errors.InvalidInputError(
            "query has half a surrogate pair, which is no character; send text that UTF-8 can hold"
        )
    if not isinstance(top_k, int) or not 1 <= top_k <= MOST_CANDIDATES:
        raise errors.InvalidInputError(f"top_k is {top_k}, expected 1 to {MOST_CANDIDATES}")
    if not isinstance(threshold, int | float) or not 0.0 <= threshold <= 1.0:
        raise errors.InvalidInputError(f"threshold is {threshold}, expected 0 to 1")


def readable(card: profile.Card) -> profile.Card:
    """The card with those of its texts that can be compared with a question.

    A question has at most 8,000 characters; of an example no more is looked at. Left out is what is
    blank, comes twice or can't be encoded, and what a card has of more than a thousand examples or
    statements.

    Raises:
        errors.InvalidInputError: it has no example.
    """
    examples, statements = _readable(card.examples), _readable(card.statements)
    if not examples:
        raise errors.InvalidInputError(
            f"card {card.name[:_LONGEST_NAMED]!r} has no example question that can be read; give "
            "it some, or a description"
        )
    if (len(examples), len(statements)) != (len(card.examples), len(card.statements)):
        _log.warning(
            "card is known by a part of its texts",
            card=card.name,
            examples=f"{len(examples):,} of {len(card.examples):,}",
            statements=f"{len(statements):,} of {len(card.statements):,}",
        )
    answer_of = dict(zip(map(_cut, card.examples), card.answered_by, strict=False))
    answered_by = tuple(answer_of[text] for text in examples) if answer_of else ()
    return dataclasses.replace(
        card, examples=examples, statements=statements, answered_by=answered_by
    )


def question_vector(vector: profile.Vectors, dimension: int) -> profile.Vectors:
    """A question's vector at unit length.

    Raises:
        errors.InternalError: it has NaN or infinite values, or another dimension.
    """
    _check_shape(vector, (dimension,))
    if not np.isfinite(vector).all():
        raise errors.InternalError(
            "the embedder returned NaN or infinite values for the question; start the router again"
        )
    return profile.unit(vector)


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Cards that can be compared with questions, and what was wrong with the others."""

    cards: tuple[tuple[profile.Card, profile.Vectors], ...]
    """With the vectors of their examples and then of their statements, (texts, dimension)."""
    problems: tuple[errors.SkillmeshError, ...]

    def check(self) -> None:
        """Raises the first problem, once the others' cards are in."""
        if self.problems:
            raise self.problems[0]


async def embedded(
    cards: Iterable[profile.Card],
    embed: Callable[[Sequence[str]], Awaitable[profile.Vectors]],
    dimension: int,
) -> Embedded:
    """Embeds cards in one call, or, where that fails, one by one: none keeps the others away.

    Raises:
        errors.InternalError: the vectors are not as many, or not as long, as they should be.
    """
    problems: list[errors.SkillmeshError] = []
    sound, found = list[profile.Card](), []
    for card in cards:
        try:
            sound.append(readable(card))
        except errors.InvalidInputError as error:
            problems.append(error)
    try:
        vectors = await _vectors(sound, embed)
    except errors.InternalError as error:
        if len(sound) == 1:
            return Embedded((), (*problems, error))
        alone = [await embedded([card], embed, dimension) for card in sound]
        return Embedded(
            tuple(pair for one in alone for pair in one.cards),
            (*problems, *(problem for one in alone for problem in one.problems)),
        )
    for card, own in zip(sound, vectors, strict=True):
        _check_shape(own, (len(card.examples) + len(card.statements), dimension))
        if np.isfinite(own).all():
            found.append((card, own))
        else:
            problems.append(
                errors.InternalError(
                    f"card {card.name[:_LONGEST_NAMED]!r}: the embedder returned NaN or infinite "
                    "values; it is routed as before: register it again"
                )
            )
    return Embedded(tuple(found), tuple(problems))


async def _vectors(
    cards: Sequence[profile.Card],
    embed: Callable[[Sequence[str]], Awaitable[profile.Vectors]],
) -> list[profile.Vectors]:
    """Those of each card's examples and then of its statements."""
    texts = [text for card in cards for text in (*card.examples, *card.statements)]
    if not texts:
        return []
    ends = np.cumsum([len(card.examples) + len(card.statements) for card in cards])
    return np.split(await embed(texts), ends[:-1])


def _check_shape(vectors: profile.Vectors, shape: tuple[int, ...]) -> None:
    if np.shape(vectors) != shape:
        raise errors.InternalError(
            f"the embedder returned vectors of shape {np.shape(vectors)}, expected {shape}: it is "
            "not the one that the router started with; start the router again"
        )


def _readable(texts: Sequence[str]) -> tuple[str, ...]:
    step = -(-len(texts) // MOST_EXAMPLES) or 1
    cut = dict.fromkeys(map(_cut, texts[::step]))
    return tuple(text for text in cut if text.strip() and _is_encodable(text))


def _cut(text: str) -> str:
    return text[:LONGEST_QUERY_CHARACTERS]


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
