"""What a sentence commits itself to: its numbers, its names, what it denies.

Rules over English words; a text in another language has numbers and names alone.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from services.distiller.documents import words

_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
} | dict(
    zip(
        "thirty forty fifty sixty seventy eighty ninety hundred".split(),
        "30 40 50 60 70 80 90 100".split(),
        strict=True,
    )
)
_FIRST_EAST_ASIAN = "\u2e80"
_VAGUE = frozenset(("one", "zero"))
"""Words that seldom count anything: `one of them`."""
_DIGITS = re.compile(
    r"(?P<minus>(?:(?<![^\s(\[=:~])(?<!\d\s)[-\u2212]|\bminus\s+))?(?P<number>\d+(?:[.,]\d+)*)"
    r"(?P<below>[^.,;\d]{0,20}\bbelow zero\b)?",
    re.I,
)
"""A dash is a sign only where no word or number stands before it: `-5`, but `10-20`, `Ryd-4`."""
_WORD = re.compile(r"[^\W_][\w'’-]*")
_NEGATIONS = frozenset(
    (
        "not no never none neither nor without cannot nobody nothing nowhere isn't aren't wasn't "
        "rather instead unlike lacks lack weren't don't doesn't didn't can't couldn't won't "
        "wouldn't hasn't haven't hadn't shouldn't mustn't"
    ).split()
)
_NOT_DENYING = frozenset("only just merely always necessarily solely simply".split())
"""`Not only` affirms, `not always` denies little."""
_SCOPE_WORDS = 2
"""Content words behind a negation that it denies."""
_SHORT_WORDS = 3
_LEAST_SHARED_START, _LONGEST_ENDING = 5, 3
_OPPOSITES = tuple(
    (frozenset(one.split()), frozenset(other.split()))
    for one, other in (
        ("increase increased increases increasing rose", "decrease decreased decreases fell"),
        ("more", "less fewer"), ("most", "least fewest"), ("before", "after"),
        ("north northern", "south southern"), ("east eastern", "west western"),
        ("highest", "lowest"), ("largest biggest", "smallest"), ("always", "never seldom"),
        ("above", "below"), ("won win wins", "lost lose loses"), ("older", "younger"),
        ("early earlier", "late later"), ("left", "right"), ("majority", "minority"),
        ("allowed permitted", "forbidden prohibited"), ("began started", "ended stopped"),
        ("open opens opened opening", "close closes closed closing"),
        ("import imports imported importing", "export exports exported exporting"),
        ("read reads reading", "write writes wrote written writing"),
        ("accepted", "rejected refused"), ("first", "last"),
        ("victory", "defeat"), ("strong stronger", "weak weaker"), ("rich richer", "poor poorer"),
        ("maximum", "minimum"), ("inside", "outside"), ("include included", "exclude excluded"),
    )
)  # fmt: skip


def east_asian(text: str) -> int:
    """How many characters of a text belong to scripts that put no spaces between words."""
    return sum(character > _FIRST_EAST_ASIAN for character in text)


def folded(text: str) -> str:
    """The text in lower case without accents."""
    plain = unicodedata.normalize("NFKD", text).casefold().replace("’", "'")
    return "".join(character for character in plain if not unicodedata.combining(character))


@functools.lru_cache(maxsize=4096)
def numbers(text: str) -> frozenset[str]:
    """Numbers in digits, however they are written: `1,200` and `1200`, `twelve` and `12`.

    `minus 5`, `-5` and `5 degrees below zero` are one number, and 5 another.
    """
    found = set[str]()
    for match in _DIGITS.finditer(text):
        plain = re.sub(r",(?=\d{3}(?:\D|$))", "", match["number"]).replace(",", ".")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain.lstrip("0") or "0"
        negative = plain != "0" and bool(match["minus"] or match["below"])
        found.add(f"-{plain}" if negative else plain)
    for word in _WORD.findall(folded(text)):
        for part in word.split("-"):
            if part in _NUMBER_WORDS and part not in _VAGUE:
                found.add(_NUMBER_WORDS[part])
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def names(text: str) -> frozenset[str]:
    """Words with a capital that is not due to a sentence's beginning, folded."""
    found = set[str]()
    for sentence in re.split(r"(?<=[.!?:])\s+", text):
        told = list(_WORD.finditer(sentence))
        for at, match in enumerate(told):
            word = match[0]
            if not word[:1].isupper() or words.content(word) == []:
                continue
            # `Current Amazon ecology`: a sentence's first word may be any.
            if at > 0 or (len(told) <= _SHORT_WORDS and not sentence.endswith((".", "!", "?"))):
                parts = [part for part in re.split(r"[-'’]", word) if part[:1].isupper()]
                found.update(folded(part) for part in parts if len(part) > 1)
    return frozenset(found - _NUMBER_WORDS.keys())


@functools.lru_cache(maxsize=4096)
def stems(text: str) -> frozenset[str]:
    """Stems of the words that carry meaning, folded."""
    return frozenset(words.stems(folded(text)))


def says_name(name: str, text: str) -> bool:
    """Whether a text has a word or one that is much like it.

    Such as Mongolia for Mongolian, or EU for European Union.

    Args:
        name: folded.
        text: as it was written.
    """
    if name in _beginnings(text):
        return True
    start = name[: max(_LEAST_SHARED_START, len(name) - _LONGEST_ENDING)]
    if len(name) >= _LEAST_SHARED_START:
        return start in _beginnings(text)
    return len(name) > 1 and name in _initials(text)


@functools.lru_cache(maxsize=1024)
def _beginnings(text: str) -> frozenset[str]:
    """All words of a text, their stems, and how the longer ones begin."""
    told = frozenset(re.findall(r"[^\W_]+", folded(text)))
    starts = (word[:end] for word in told for end in range(_LEAST_SHARED_START, len(word)))
    return told | stems(text) | frozenset(starts)


@functools.lru_cache(maxsize=1024)
def _initials(text: str) -> str:
    """The first letters of a text's capitalised words, small words passed over."""
    found = []
    for word in _WORD.findall(text):
        if word[:1].isupper():
            found.append(word[:1].lower())
        elif word not in ("of", "the", "and", "for"):
            found.append(" ")
    return "".join(found)


@functools.lru_cache(maxsize=4096)
def denied(text: str) -> frozenset[str]:
    """Stems of the content words that stand right behind a negation."""
    told = [match[0] for match in _WORD.finditer(folded(text))]
    found = set[str]()
    for at, word in enumerate(told):
        if word in _NEGATIONS:
            behind = [word for word in told[at + 1 :] if words.content(word) and len(word) > 2]
            if behind and behind[0] in _NOT_DENYING:
                continue
            found.update(words.stem(word) for word in behind[:_SCOPE_WORDS])
    return frozenset(found)


def flipped(one: str, other: str) -> str:
    """The word that one text affirms and the other denies or replaces by its opposite.

    Only meaningful for texts that speak of the same; empty where there is none.
    """
    denied_one, denied_other = denied(one), denied(other)
    stems_one, stems_other = stems(one), stems(other)
    for said, unsaid, stems_said in (
        (denied_one, denied_other, stems_other),
        (denied_other, denied_one, stems_one),
    ):
        if not unsaid and said & stems_said:
            return min(said & stems_said)
    told_one: frozenset[str] = frozenset(_WORD.findall(folded(one)))
    told_other: frozenset[str] = frozenset(_WORD.findall(folded(other)))
    for left, right in _OPPOSITES:
        for first, second in ((left, right), (right, left)):
            here, there = told_one & first, told_other & second
            if here and there and not (told_one & second or told_other & first):
                return min(here)
    return ""
