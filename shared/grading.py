"""Decides whether an answer is right: one rule for the gate, the confirmation and the reports."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = {"a", "an", "the"}
_LONGEST_EXTRA = 60
"""A right answer has at most this many words beside the expected ones."""


_IGNORANCE = re.compile(
    r"\bi (?:do not|don['\u2019]?t|cannot|can ?not|can['\u2019]?t) "
    r"(?:really |actually )?(?:know|say|tell|answer|find|provide|have)\b"
    r"|\bi(?: am|['\u2019]m) (?:not (?:sure|aware|certain|familiar)|unsure|unable|sorry, but i)\b"
    r"|\b(?:there is|i have|have) no (?:information|record|knowledge)\b"
)
_LEAD = 200
"""An answer that does not know says so in its first so many characters."""


def normalise(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, as SQuAD's scorer does it."""
    # Before NFKC, which makes plain spaces of those that do not break.
    joined = re.sub(r"(?<=\d)[,\u00a0\u202f](?=\d{3}\b)", "", text)
    plain = unicodedata.normalize("NFKC", joined).casefold()
    words = re.findall(r"\w+", plain)
    return [word for word in words if word not in _ARTICLES]


def admits_ignorance(answer: str) -> bool:
    """Whether an answer says, in English, that whoever gave it does not know."""
    return _IGNORANCE.search(answer[:_LEAD].casefold()) is not None


def is_right(answer: str, expected: str) -> bool:
    """Whether the expected words stand in the answer, in a row and whole.

    An answer that pours out far more than was asked is not right, whatever it contains.
    """
    given, wanted = normalise(answer), normalise(expected)
    if not wanted or len(given) > len(wanted) + _LONGEST_EXTRA:
        return False
    spans = range(len(given) - len(wanted) + 1)
    return any(given[at : at + len(wanted)] == wanted for at in spans)
