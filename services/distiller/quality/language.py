"""Whether pairs are in the language of those who ask.

The language of a text is told by py3langid (Lui and Baldwin 2012), a naive Bayes classifier over
byte sequences. Names, numbers and short answers belong to no language and pass.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

import py3langid

from services.distiller.quality import claims, verdict
from shared.flight import datasets

_LEAST_WORDS = 3
"""In lower case: with fewer a text is mostly names."""
_SURE_BY = 20.0
"""A text is in another language where that is more probable by so many nats."""
_ENDS = (".", "!", "?")
_FOREIGN_WORDS = re.compile(
    r"\btranslat|\b(?:in|into|for|the) (?:[A-Z][a-z]+(?:ese|ish|ian)|German|French|Greek|Dutch|"
    r"Czech|Welsh|Thai|Hindi|Arabic|Hebrew|Urdu|Swahili|Latin|Gaelic|Icelandic|Korean)\b"
)
"""Of questions whose answer is in another language on purpose."""


def prepare() -> None:
    """Loads the classifier, which takes a second."""
    _probable("")


def spoken(texts: Iterable[str]) -> frozenset[str]:
    """The languages that some texts may be in, as ISO 639 codes.

    A short query is seldom surely in one: all that are nearly as probable count. Texts too short to
    tell say nothing.
    """
    told = list(texts)
    probable = (_probable(text) for text in (*told, " ".join(told)) if _tells(text))
    return frozenset[str]().union(*probable)


def expected(pairs: Sequence[datasets.QAPair], languages: Iterable[str]) -> verdict.Sifted:
    """Rejects pairs whose questions or answer are in none of the languages.

    Args:
        pairs: any.
        languages: ISO 639 codes; none: that of all the pairs together.
    """
    wanted = frozenset(languages) or spoken(pair.question for pair in pairs)
    return verdict.sift((pair, _foreign(pair, wanted)) for pair in pairs)


def _foreign(pair: datasets.QAPair, wanted: frozenset[str]) -> tuple[verdict.Reason, str] | None:
    for part, text in (
        ("question", " ".join((pair.question, *pair.paraphrases))),
        ("answer", pair.answer),
    ):
        if not _tells(text) or (part == "answer" and _quoted(pair)):
            continue
        ranked = _ranked(text)
        if (wanted & ranked.keys()) and not wanted & _probable(text):
            best = max(ranked, key=lambda code: ranked[code])
            detail = f"the {part} is {best}, not {' or '.join(sorted(wanted))}"
            return verdict.Reason.LANGUAGE, detail
    return None


def _quoted(pair: datasets.QAPair) -> bool:
    """Whether an answer may well be in another language: no sentence, or the question asks so."""
    answer = pair.answer.strip()
    whole = answer[:1].isupper() or answer.endswith(_ENDS) or claims.east_asian(answer) > 0
    return not whole or _FOREIGN_WORDS.search(pair.question) is not None


def _probable(text: str) -> frozenset[str]:
    """The languages that are not clearly less probable than the likeliest."""
    ranked = _ranked(text)
    best = max(ranked.values())
    return frozenset(code for code, nats in ranked.items() if nats >= best - _SURE_BY)


@functools.lru_cache(maxsize=1024)
def _ranked(text: str) -> dict[str, float]:
    return dict(py3langid.rank(text))


def _tells(text: str) -> bool:
    """Whether a text is long enough; without spaces between words its letters count."""
    east_asian = claims.east_asian(text)
    words = sum(word[:1].islower() for word in re.findall(r"\w+", text))
    return (east_asian or words) >= _LEAST_WORDS
