"""Whether pairs are in the language of those who ask.

The language of a text is told by py3langid (Lui and Baldwin 2012), a naive Bayes classifier over
byte sequences. Names, numbers and short answers belong to no language and pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import py3langid

from services.distiller.quality import verdict
from shared.flight import datasets

_LEAST_WORDS = 3
"""In lower case: with fewer a text is mostly names."""
_FIRST_EAST_ASIAN = "\u2e80"
_SURE_BY = 20.0
"""A text is in another language where that is more probable by so many nats."""


def prepare() -> None:
    """Loads the classifier, which takes a second."""
    _language("")


def spoken(texts: Iterable[str]) -> frozenset[str]:
    """The languages of some texts, as ISO 639 codes; texts too short to tell say nothing."""
    told = list(texts)
    return frozenset(_language(text) for text in (*told, " ".join(told)) if _tells(text))


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
        if not wanted or not _tells(text):
            continue
        ranked: dict[str, float] = dict(py3langid.rank(text))
        best = max(ranked, key=lambda code: ranked[code])
        nearest: float | None = max(
            (ranked[code] for code in wanted if code in ranked), default=None
        )
        if nearest is not None and ranked[best] > nearest + _SURE_BY:
            detail = f"the {part} is {best}, not {' or '.join(sorted(wanted))}"
            return verdict.Reason.LANGUAGE, detail
    return None


def _language(text: str) -> str:
    found: str = py3langid.classify(text)[0]
    return found


def _tells(text: str) -> bool:
    """Whether a text is long enough; without spaces between words its letters count."""
    east_asian = sum(character > _FIRST_EAST_ASIAN for character in text)
    words = sum(word[:1].islower() for word in re.findall(r"\w+", text))
    return (east_asian or words) >= _LEAST_WORDS
