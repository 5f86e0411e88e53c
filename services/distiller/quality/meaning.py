"""When two questions mean the same, and when two answers to them can't both be right.

The embedder alone does not tell `When was it built?` from `Who built it?`: both must also ask for
the same kind of thing, with the same numbers and mostly the same words.
"""

from __future__ import annotations

import functools
import re

from services.distiller.documents import words
from services.distiller.quality import claims
from shared import grading

_FORMS = (
    ("who", re.compile(r"\b(?:who|whom|whose|person)\b")),
    ("when", re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month)|date)\b")),
    ("where", re.compile(r"\b(?:where|which (?:town|city|place|country|village|street))\b")),
    ("count", re.compile(r"\bhow (?:many|much)\b|\bnumber of\b")),
    ("how", re.compile(r"\bhow\b")),
    ("why", re.compile(r"\bwhy\b")),
)
SAME_QUESTION = 0.85
"""Least similarity (cosine) of two questions that mean the same."""
_LEAST_SHARED_WORDS = 0.5
_SHORT_ANSWER, _LONG_ANSWER = 5, 12
"""Content words."""
_YES_OR_NO = re.compile(r"^(?:(yes)|(no))\b", re.I)


def same_question(one: str, other: str, similarity: float) -> bool:
    """Whether two questions ask the same.

    Args:
        one: a question.
        other: another.
        similarity: of their vectors, cosine.
    """
    if similarity < SAME_QUESTION or _form(one) != _form(other):
        return False
    if claims.numbers(one) != claims.numbers(other) or claims.flipped(one, other):
        return False
    left, right = claims.stems(one), claims.stems(other)
    return len(left & right) >= _LEAST_SHARED_WORDS * len(left | right)


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same: one contains the other."""
    return grading.is_right(one, other) or grading.is_right(other, one)


def clash(one: str, other: str, similarity: float) -> str:
    """Why two answers to one question can't both be right; empty where they can.

    Args:
        one: an answer.
        other: another.
        similarity: of their vectors, cosine.
    """
    if same_answer(one, other):
        return ""
    polar = _YES_OR_NO.match(one), _YES_OR_NO.match(other)
    if polar[0] and polar[1] and polar[0].lastindex != polar[1].lastindex:
        return "yes and no"
    left_stems, right_stems = claims.stems(one), claims.stems(other)
    # Long quotations name many things, of which each answers something else.
    told = ("numbers", claims.numbers), ("names", claims.names)
    for what, those_of in told if min(map(len, (left_stems, right_stems))) <= _LONG_ANSWER else ():
        left, right = those_of(one), those_of(other)
        if left and right and not (left <= right or right <= left):
            return f"{what} differ: {', '.join(sorted(left ^ right)[:4])}"
    shared = len(left_stems & right_stems) / (min(len(left_stems), len(right_stems)) or 1)
    if shared >= _LEAST_SHARED_WORDS and (word := claims.flipped(one, other)):
        return f"one says the opposite about {word}"
    short = max(len(left_stems), len(right_stems)) <= _SHORT_ANSWER
    if short and not left_stems & right_stems and similarity < _LEAST_SHARED_WORDS:
        return "they have nothing in common"
    return ""


@functools.lru_cache(maxsize=4096)
def _form(question: str) -> str:
    """What a question asks for, as far as its question word tells."""
    lower = question.casefold()
    return next((name for name, form in _FORMS if form.search(lower)), words.wanted(lower).value)
