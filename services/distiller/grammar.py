"""What a question asks about, and other wordings of it that hold for any English question.

String work alone: no embedder; of the families it only knows which words are common. See
`rewording` for wordings by meaning.
"""

from __future__ import annotations

import functools
import itertools
import re

from services.distiller import synonyms
from shared.models.embedded.recipe import families

_QUESTION_WORDS = frozenset(
    (
        "what which who whom whose when where why how is are was were do does did can could in on "
        "at by from to for of if name tell give i the a an"
    ).split()
)
_JOINERS = ("of", "the", "de", "van", "von", "&", "and")
_NOT_NOUNS = frozenset(
    (
        "is are was were be been do does did can could may must will would should have has had in "
        "on at by from to for of with about than that which who when where how made built called "
        "used get keep mean run runs listen take takes come comes go goes begin start end open "
        "first last found always never"
    ).split()
)
_NAME = re.compile(r"[`'\"]?[A-Z][\w'’.-]*|.*\d|&$")
_MOST_THINGS = 4
_SHORTEST_NAME = 5
_PAST = ("did", "was", "were")
_AUXILIARIES = frozenset("do does did can could must may might will would should shall".split())


def things_asked_about(question: str) -> list[str]:
    """Noun phrases around the question's proper name, the barest first; none without a name.

    `Who made the lens of the Orun light?` asks about `the Orun light`, about
    `the lens of the Orun light`, and so on: which of them a wording is about depends on it.
    """
    words = question.rstrip("?.! ").split()
    span = _name_span(words) or _rare_span(words)
    if span is None:
        return _described(question)
    first, last = span
    if first > 0 and words[first - 1].casefold() in ("the", "a", "an"):
        first -= 1
    spans = [(first, last)]
    longer = last
    # `Where does Orun move ...`: behind an auxiliary and its subject stands a verb, not a noun.
    asks_verb = any(word.casefold() in _AUXILIARIES for word in words[max(0, first - 1) : first])
    while (
        not asks_verb
        and longer + 1 < len(words)
        and _is_noun(words[longer + 1])
        and longer - last < 2
    ):
        longer += 1
        spans.append((first, longer))
    for begin, end in tuple(spans):
        left = _with_owner(words, begin)
        if left is not None:
            spans.append((left, end))
    phrases = (" ".join(words[begin : end + 1]).rstrip("',;:") for begin, end in spans)
    return list(dict.fromkeys(phrases))[:_MOST_THINGS]


def _described(question: str) -> list[str]:
    """Things called by a description, such as `the ash-tailed brindlefox`, the last one first."""
    phrase = re.compile(r"\b(the|a|an) ((?:[a-z][\w'’-]*)(?: [a-z][\w'’-]*){0,2})")
    found = []
    for article, words in phrase.findall(question.rstrip("?.! ")):
        nouns = list(itertools.takewhile(_may_describe, words.split()))
        if nouns:
            found.append(" ".join([article, *nouns]))
    return list(dict.fromkeys(reversed(found)))[:_MOST_THINGS]


def _may_describe(word: str) -> bool:
    return word not in _NOT_NOUNS and not word.endswith("ly")


def other_names(thing: str) -> list[str]:
    """Ways to say the same thing: `the Orun Light` is `the light at Orun` and `Orun`."""
    name, _, noun = thing.removeprefix("the ").rpartition(" ")
    if noun.lower() not in _nouns() or not re.fullmatch(r"[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*", name):
        return []
    return [f"the {noun.lower()} at {name}", name, f"the {noun.lower()} of {name}"]


def wordings(question: str, thing: str) -> list[str]:
    """The question asked otherwise, as a request, and as key words.

    Args:
        question: what was asked.
        thing: the noun phrase that it is about; empty where none was found.
    """
    body = question.rstrip("?.! ")
    lower = body[:1].lower() + body[1:]
    found = [f"Can you tell me {clause}?" for clause in [_as_clause(lower, thing)] if clause]
    found += _of_part(lower) + _by_question_word(lower, thing)
    if thing and thing in body:
        rest = body.replace(thing, "it", 1)
        found.append(f"About {thing}: {rest[:1].lower()}{rest[1:]}?")
        for name in other_names(thing)[:1]:
            found.append(f"{body.replace(thing, name, 1)}?")
    found.append(" ".join(w for w in body.split() if w.casefold() not in _QUESTION_WORDS))
    return [_first_upper(wording) for wording in found]


def _of_part(lower: str) -> list[str]:
    match = re.fullmatch(r"what (?:is|are|was|were) (the [^,]+?) (?:of|in|for|at) (.+)", lower)
    if match is None or not all(map(_may_name, match[2].split())):
        return []
    part, whole = match[1], match[2]
    bare = part.removeprefix("the ")
    return [
        f"{_first_upper(whole)}: what is {part}?",
        f"Tell me {part} of {whole}.",
        f"Which {bare} does {whole} have?",
        f"What do you know about {part} of {whole}?",
    ]


def _by_question_word(lower: str, thing: str) -> list[str]:
    if match := re.fullmatch(r"who (.+)", lower):
        return [
            f"Name the person who {match[1]}.",
            f"Which person {match[1]}?",
            f"What is the name of whoever {match[1]}?",
        ]
    if match := re.fullmatch(r"(?:when|in (?:which|what) year) (did|was|were|is|does) (.+)", lower):
        clause = _as_clause(lower, thing)
        told = [f"Tell me {clause}.", f"What is the date {clause}?"] if clause else []
        years = [f"In what year {match[1]} {match[2]}?"] if match[1] in _PAST else []
        return [*years, *told]
    if match := re.fullmatch(r"where (did|was|were|is|are|does|do|can) (.+)", lower):
        return [
            f"In which place {match[1]} {match[2]}?",
            f"At what location {match[1]} {match[2]}?",
        ]
    if match := re.fullmatch(r"how many (\w+) (.+)", lower):
        return [
            f"What is the number of {match[1]}: how many {match[2]}?",
            f"Give the count of {match[1]} that {match[2]}.",
        ]
    match = re.fullmatch(r"(in |at |on |by |for )?(?:which|what) (\w+) (.+)", lower)
    if match and match[2] not in _NOT_NOUNS:
        return [
            f"Name the {match[2]}: {match[1] or ''}which one {match[3]}?",
            f"{_first_upper(match[1] or '')}{'w' if match[1] else 'W'}hat {match[2]} {match[3]}?",
        ]
    return []


def _as_clause(lower: str, thing: str) -> str:
    """`when was the tower built` as `when the tower was built`; empty where that is not clear."""
    verbs = "is|was|are|were|can|must|should|may"
    if thing:
        pattern = rf"((?:how|when|where|why)(?: \w+)?) ({verbs}) ({re.escape(thing)})(.*)"
        if match := re.fullmatch(pattern, lower, re.I):
            return f"{match[1]} {match[3]} {match[2]}{match[4]}"
    if re.match(rf"(?:who|what|which)(?: \w+)? (?:{verbs}) ", lower) or lower.startswith("who "):
        return lower
    return ""


@functools.cache
def _nouns() -> frozenset[str]:
    return frozenset(families.nouns())


def _name_span(words: list[str]) -> tuple[int, int] | None:
    """First and last word of the first proper name."""
    names = [
        at
        for at, word in enumerate(words)
        if _NAME.match(word) and (at > 0 or word.casefold() not in _QUESTION_WORDS)
    ]
    # The first word is a capital anyway: it is a name only where there is no surer one.
    if len(names) > 1 and names[0] == 0 and names[1] > 1:
        names = names[1:]
    if not names:
        return None
    first = last = names[0]
    for at in names[1:]:
        if at == last + 1 or (at == last + 2 and words[last + 1] in _JOINERS):
            last = at
    return first, last


def _rare_span(words: list[str]) -> tuple[int, int] | None:
    """The last word that no question of any family has: names are not always capitals."""
    rare = [
        at
        for at, word in enumerate(words)
        if len(word) >= _SHORTEST_NAME and word.isalpha() and not _is_common(word.casefold())
    ]
    if not rare:
        return None
    first = last = rare[-1]
    for before in range(1, 3):
        if last > before and words[last - before - 1].casefold() in ("the", "a", "an"):
            first = last - before
    return first, last


def _is_common(word: str) -> bool:
    forms = (word, f"{word}s", f"{word}e", f"{word}ed", *(
        word.removesuffix(ending) for ending in ("s", "es", "d", "ed", "ing", "ly")
    ))  # fmt: skip
    return any(form in _common_words() for form in forms)


@functools.cache
def _common_words() -> frozenset[str]:
    texts = [text for family in families.load() for text in (*family.questions, *family.statements)]
    texts += [text for head, others in synonyms.lexicon().items() for text in (head, *others)]
    found = {word.casefold() for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    return frozenset(found | _nouns())


def _with_owner(words: list[str], begin: int) -> int | None:
    """Where the phrase begins with `the lens of` before it; None where nothing is before it."""
    if begin < 2 or words[begin - 1] not in ("of", "in", "at", "on"):
        return None
    for at in range(begin - 2, max(-1, begin - 6), -1):
        if words[at].casefold() in ("the", "a", "an"):
            return at
        if not _may_name(words[at]):
            return None
    return None


def _is_noun(word: str) -> bool:
    return (
        word.isalpha() and word.islower() and not word.endswith(("ing", "ed", "ly"))
        and word not in _NOT_NOUNS
    )  # fmt: skip


def _may_name(word: str) -> bool:
    """Whether a word may stand inside a noun phrase: no verb form that is easily told."""
    if word in ("of", "in", "at", "on", "for") or not word.islower():
        return True
    return word not in _NOT_NOUNS and not word.endswith("ed")


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
