from __future__ import annotations

import pytest

from shared import rewriting

ASKED, KNOWN = "Its builder?", "Who built it?"


@pytest.mark.parametrize(
    ("reading", "similarity", "least", "expected"),
    [
        (KNOWN, 0.5, 0.5, KNOWN),
        (KNOWN, 0.49, 0.5, ""),
        (KNOWN, 1.0, None, ""),
        (KNOWN, 0.0, 0.0, KNOWN),
        (ASKED, 1.0, 0.5, ""),
        ("", 1.0, 0.5, ""),
    ],
)
def test_question_is_rewritten_when_it_is_similar_to_another_that_the_card_knows(
    reading: str, similarity: float, least: float | None, expected: str
) -> None:
    assert rewriting.rewritten(ASKED, reading, similarity, least) == expected
