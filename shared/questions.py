"""When two spellings are the same question."""

from __future__ import annotations

import re
import unicodedata

LONGEST_TRAINED = 400
"""Characters of a question and of an answer that are fit to train on: longer ones are essays, which
small models learn badly."""
_PUNCTUATION = re.compile(
    r"""(?<!\d)[.,]|[.,](?!\d)|[;:!?\u00bf\u00a1"'`()\[\]{}\u2018-\u201e\u00ab\u00bb\u2013-\u2015]"""
)


def fold(question: str) -> str:
    """A question without the differences that do not matter: case, white space, punctuation.

    Signs that tell things apart stay: 3.14 is not 3 14, C# is not C++.
    """
    plain = unicodedata.normalize("NFKC", question).casefold()
    return " ".join(_PUNCTUATION.sub(" ", plain).split()) or question.strip()
