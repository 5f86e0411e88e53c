"""Decides whether an answer is right: one rule for the gate, the confirmation and the reports."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = {"a", "an", "the"}
_LONGEST_EXTRA = 60
"""A right answer has at most this many words beside the expected ones."""


def normalise(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, as SQuAD's scorer does it."""
    # Before NFKC, which makes plain spaces of those that do not break.
    joined = re.sub(r"(?<=\d)[,\u00a0\u202f](?=\d{3}\b)", "", text)
    plain = unicodedata.normalize("NFKC", joined).casefold()
    words = re.findall(r"\w+", plain)
    return [word for word in words if word not in _ARTICLES]


def is_right(answer: str, expected: str) -> bool:
    """Whether the expected words stand in the answer, in a row and whole.

    An answer that pours out far more than was asked is not right, whatever it contains.
    """
    given, wanted = normalise(answer), normalise(expected)
    if not wanted or len(given) > len(wanted) + _LONGEST_EXTRA:
        return False
    spans = range(len(given) - len(wanted) + 1)
    return any(given[at : at + len(wanted)] == wanted for at in spans)
