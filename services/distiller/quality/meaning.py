"""When two questions mean the same, and when two answers to them can't both be right.

The embedder alone does not tell `When was it built?` from `Who built it?`: both must also ask for
the same kind of thing, with the same numbers and mostly the same words.
"""

from __future__ import annotations

import functools
import re

from services.distiller.documents import words
from services.distiller.quality import claims, quantities
from shared import grading

_FORMS = (
    ("when", re.compile(r"when\b|(?:\w+ )?(?:what|which) (?:year|date|day|month)\b")),
    ("who", re.compile(r"(?:\w+ )?(?:who|whom|whose)\b|(?:what|which) person\b")),
    ("where", re.compile(r"where\b|(?:\w+ )?(?:what|which) (?:town|city|place|country|street)\b")),
    ("count", re.compile(r"how (?:many|much)\b")),
    ("how", re.compile(r"how\b")),
    ("why", re.compile(r"why\b")),
    ("what", re.compile(r"(?:\w+ )?(?:what|which)\b")),
)
_TYPE_STEMS = frozenset(map(words.stem, "year date day month time person place town city".split()))
"""Words that only repeat what kind of thing is asked for."""
_ORDINALS = re.compile(
    r"\b(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|next|other|another)\b"
)
_DATES = re.compile(
    r"\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|june|july|"
    r"august|september|october|november|december)(?:s|'s)?\b"
)
"""Days and months tell questions apart as numbers do."""
SAME_QUESTION = 0.85
"""Least similarity (cosine) of two questions that mean the same."""
_SYNONYM = 0.95
"""Least similarity where one word differs: `open` and `close` leave 0.89 of a short question."""
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
    specifics = (claims.numbers, claims.names, _ordinals, _dates, _signs)
    if any(those_of(one) != those_of(other) for those_of in specifics):
        return False
    left, right = (claims.stems(question) - _TYPE_STEMS for question in (one, other))
    if left != right and similarity < _SYNONYM:
        return False
    # One word may be another of the same meaning; one that only one of them has tells things apart.
    return len(left - right) == len(right - left) <= 1 and not claims.flipped(one, other)


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same: one contains the other."""
    one, other = quantities.plain(one), quantities.plain(other)
    return grading.is_right(one, other) or grading.is_right(other, one)


def same_words(one: str, other: str) -> bool:
    """Whether two questions have the same content words."""
    return claims.stems(one) - _TYPE_STEMS == claims.stems(other) - _TYPE_STEMS


def clash(one: str, other: str, similarity: float, surely: bool) -> str:
    """Why two answers to one question can't both be right; empty where they can.

    Args:
        one: an answer.
        other: another.
        similarity: of their vectors, cosine.
        surely: whether they surely answer the same question, see `same_words`; where that is not
            sure, answers that only have nothing in common do not clash.
    """
    if same_answer(one, other):
        return ""
    one, other = quantities.plain(one), quantities.plain(other)
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
    told_alike = claims.numbers(one) & claims.numbers(other) or claims.east_asian(one + other)
    if not surely or told_alike or similarity >= _LEAST_SHARED_WORDS:
        return ""
    if short and not left_stems & right_stems:
        return "they have nothing in common"
    return ""


@functools.lru_cache(maxsize=4096)
def _form(question: str) -> str:
    """What a question asks for, as far as its question word tells."""
    lower = question.casefold()
    return next((name for name, form in _FORMS if form.match(lower)), "")


def _ordinals(question: str) -> frozenset[str]:
    return frozenset(_ORDINALS.findall(question.casefold()))


def _signs(question: str) -> frozenset[str]:
    """What is more than letters and digits, such as C++, -40 and ==."""
    return frozenset(word for word in grading.normalise(question) if re.search(r"\W", word))


def _dates(question: str) -> frozenset[str]:
    return frozenset(match.rstrip("s'") for match in _DATES.findall(question.casefold()))
