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
_TOKENS = re.compile(
    # A number below zero: the dash of `1914-1918`, `(030)-12` or `1914--1918` is none.
    r"(?<![\w)-])-\d\w*"
    # A name such as C++ or C#; any other word.
    r"|\w+\+\+|\b[^\W\d]#(?!\w)|\w+"
    # An operator that stands alone, such as == or ->, but no dash, ellipsis or heading.
    r"|(?<![^\s`'\"(])(?![-!#]+(?:\s|$))[-=<>+*/%&|^~!#:]{2,}(?=$|[\s`'\".,;?!)])"
)
_QUOTES = "`'\"\u201c\u201d\u2018\u2019\u201e\u00ab\u00bb"
_NO_WORDS = frozenset(".,;:?!\u2026\u3002\u3001\u00bf\u00a1()[]-\u2010\u2013\u2014\u2015")
"""Marks that alone say nothing."""
_ENDS = ".,;:?!"
_LEAD = 200
"""An answer that does not know says so in its first so many characters."""


def normalise(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, as SQuAD's scorer does it.

    Other than there, signs of numbers, names such as C++ and operators that stand alone are kept;
    a text without words is one word of its own, unless it is only punctuation.
    """
    # Before NFKC, which makes plain spaces of those that do not break.
    joined = re.sub(r"(?<=\d)[,\u00a0\u202f](?=\d{3}\b)", "", text)
    # NFKC makes three dots of an ellipsis.
    plain = unicodedata.normalize("NFKC", joined).casefold().replace("\u2212", "-")
    words: list[str] = _TOKENS.findall(plain)
    if not words:
        symbols = "".join(plain.split()).strip(_QUOTES)
        return [] if _NO_WORDS.issuperset(symbols) else [symbols]
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
    if not any(map(_is_symbol, wanted)):
        given = [word for word in given if not _is_symbol(word)]
    elif len(wanted) == 1 and _is_symbol(wanted[0]):
        given += [symbol for part in answer.split() for symbol in normalise(part.rstrip(_ENDS))]
    return _holds(given, wanted) or _holds(_written_alike(given), _written_alike(wanted))


def _is_symbol(word: str) -> bool:
    return re.search(r"\w", word) is None


def _holds(given: list[str], wanted: list[str]) -> bool:
    spans = range(len(given) - len(wanted) + 1)
    return any(given[at : at + len(wanted)] == wanted for at in spans)


def _written_alike(words: list[str]) -> list[str]:
    """The words with numbers in digits, and dates as day, month and year; `minus 4` is `-4`."""
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
        if word == "minus" and others and others[0][:1].isdigit():
            found, at = [*found, f"-{others[0]}"], at + 2
        elif day and others[:1] == ["of"] and others[1:] and others[1] in _MONTHS:
            found, at = [*found, day[1], others[1]], at + 3
        elif day and others and others[0] in _MONTHS:
            found, at = [*found, day[1], others[0]], at + 2
        elif word in _MONTHS and others and (day := _DAY.fullmatch(others[0])):
            found, at = [*found, day[1], word], at + 2
        else:
            found, at = [*found, word], at + 1
    return found
