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
_UNITS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
"""Not `one`, which mostly is no number."""
_NUMBERS = {word: number for number, word in enumerate(_UNITS, 2)} | {
    word: 10 * tens
    for tens, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_TENS = frozenset(str(10 * tens) for tens in range(2, 10))
_MONTHS = frozenset(
    (
        "january february march april may june july august september october november december"
    ).split()
)
_DAY = re.compile(r"(\d|[12]\d|3[01])(?:st|nd|rd|th)?")
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

    Numbers in words are as good as in digits, and so is a date with its month first. An answer that
    pours out far more than was asked is not right, whatever it contains.
    """
    given, wanted = normalise(answer), normalise(expected)
    if not wanted or len(given) > len(wanted) + _LONGEST_EXTRA:
        return False
    return _holds(given, wanted) or _holds(_written_alike(given), _written_alike(wanted))


def _holds(given: list[str], wanted: list[str]) -> bool:
    spans = range(len(given) - len(wanted) + 1)
    return any(given[at : at + len(wanted)] == wanted for at in spans)


def _written_alike(words: list[str]) -> list[str]:
    """The words with numbers in digits, and dates as day, month and year."""
    plain = list[str]()
    for word in words:
        number = _NUMBERS.get(word)
        if number is not None and number < 10 and plain and plain[-1] in _TENS:
            plain[-1] = str(int(plain[-1]) + number)
        else:
            plain.append(word if number is None else str(number))
    found, at = list[str](), 0
    while at < len(plain):
        word, *others = plain[at : at + 3]
        day = _DAY.fullmatch(word)
        if day and others[:1] == ["of"] and others[1:] and others[1] in _MONTHS:
            found, at = [*found, day[1], others[1]], at + 3
        elif day and others and others[0] in _MONTHS:
            found, at = [*found, day[1], others[0]], at + 2
        elif word in _MONTHS and others and (day := _DAY.fullmatch(others[0])):
            found, at = [*found, day[1], word], at + 2
        else:
            found, at = [*found, word], at + 1
    return found
