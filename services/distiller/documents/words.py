"""Words as the reader of documents sees them: stems, and what kind of answer a question wants."""

from __future__ import annotations

import enum
import re

_STOP_WORDS = frozenset(
    (
        "the a an of in on at to for is are was were be by with and or does do did what which who "
        "whom when where why how many much it its this that there has have had can from as name "
        "tell me"
    ).split()
)
_ENDINGS = (
    "ingly", "edly", "ations", "ation", "ing", "ers", "er", "ed", "es", "s", "ly", "ment",
)  # fmt: skip
_SHORTEST_STEM = 3

_NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million half third quarter dozen once twice"
).replace(" ", "|")
_NUMBER = re.compile(rf"\d|\b(?:{_NUMBER_WORDS})\b", re.I)
_YEAR = re.compile(r"\b1\d{3}\b|\b20\d\d\b")
_TIME = re.compile(
    r"\b1\d{3}\b|\b20\d\d\b|\b(?:January|February|March|April|May|June|July|August|September|"
    r"October|November|December|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|spring|summer|autumn|"
    r"winter|century|dawn|dusk|noon|midnight|morning|evening|night|week|day|month|year|o'clock)\b|"
    r"\d\d?[:.]\d\d|\b\d+ ?(?:am|pm|a\.m|p\.m)",
    re.I,
)
_PLACE = re.compile(
    r"\b(?:in|on|at|near|off|from|to|under|above|below|beside|behind|between|outside|inside|of)\b"
)
_REASON = re.compile(r"\b(?:because|since|so that|due|as|to|for|thanks|reason|after)\b", re.I)
_ROLE = re.compile(
    r"\b(?:manager|director|head|officer|team|department|keeper|council|board|mayor|committee|"
    r"monks?|engineer|owner|chair|secretary|members?)\b",
    re.I,
)
_NAME = re.compile(r"[A-Z][\w'’-]+(?: (?:of|de|van|von|der|la|&))?(?: ?[A-Z][\w'’-]+)*")


class Wanted(enum.Enum):
    """The kind of answer that a question asks for."""

    ANYTHING = "anything"
    YEAR = "year"
    TIME = "time"
    NUMBER = "number"
    PERSON = "person"
    PLACE = "place"
    REASON = "reason"


_QUESTION_FORMS = (
    (Wanted.YEAR, r"\b(?:what|which) year\b"),
    (Wanted.TIME, r"\b(?:when|what date|which (?:day|month|date)|what (?:day|month|time))\b"),
    (
        Wanted.NUMBER,
        r"\bhow (?:many|much|tall|high|long|far|deep|heavy|wide|old|big|large|fast|often|hot|cold|"
        r"thick|warm|loud)\b|\b(?:number|height|length|weight|price|cost|limit|size|maximum|"
        r"minimum|temperature|age|fee|depth|width|speed|interval|capacity)\b",
    ),
    (Wanted.PERSON, r"^(?:who|whose|by whom|whom)\b|\bwhich (?:person|engineer|architect)\b"),
    (Wanted.PLACE, r"^where\b|^in (?:which|what) (?:place|town|city|country|village)\b"),
    (Wanted.REASON, r"^why\b"),
)


def stem(word: str) -> str:
    """A word without its commonest ending, in lower case."""
    word = word.lower()
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def content(text: str) -> list[str]:
    """The words that carry meaning, in lower case, in order."""
    return [word for word in re.findall(r"\w+", text.lower()) if word not in _STOP_WORDS]


def stems(text: str) -> set[str]:
    """The stems of the words that carry meaning."""
    return {stem(word) for word in content(text)}


def wanted(question: str) -> Wanted:
    """What kind of answer a question asks for."""
    lower = question.lower()
    for kind, form in _QUESTION_FORMS:
        if re.search(form, lower):
            return kind
    return Wanted.ANYTHING


def clash(one: Wanted, other: Wanted) -> bool:
    """Whether no two questions that want these kinds of answer can mean the same."""
    alike = {Wanted.YEAR, Wanted.TIME, Wanted.NUMBER}
    return Wanted.ANYTHING not in (one, other) and one is not other and not {one, other} <= alike


def offers(text: str, kind: Wanted, asked: set[str]) -> bool:
    """Whether a text holds something of the kind that is wanted.

    Args:
        text: a passage.
        kind: what is wanted.
        asked: stems of the question: a name that it already says is no answer to it.
    """
    match kind:
        case Wanted.YEAR:
            return _YEAR.search(text) is not None
        case Wanted.TIME:
            return _TIME.search(text) is not None
        case Wanted.NUMBER:
            return _NUMBER.search(text) is not None
        case Wanted.PERSON:
            return _has_new_name(text, asked) or _ROLE.search(text) is not None
        case Wanted.PLACE:
            return _PLACE.search(text) is not None
        case Wanted.REASON:
            return _REASON.search(text) is not None
        case Wanted.ANYTHING:
            return True


def _has_new_name(text: str, asked: set[str]) -> bool:
    for match in _NAME.finditer(text):
        words = re.findall(r"\w+", match[0])
        only_first_word = match.start() == 0 and len(words) == 1
        if not only_first_word and any(stem(w) not in asked for w in content(match[0])):
            return True
    return False
