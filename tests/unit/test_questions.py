from __future__ import annotations

import pytest

from shared import questions


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What does Zorblax trade?", "  what does ZORBLAX\ttrade ", True),
        ("Who said “hello”?", 'who said "hello"', True),
        ("What is C#?", "What is C++?", False),
        ("Is it 3.14?", "Is it 3 14?", False),
        ("Who is The Who?", "Who is who?", False),
        ("?!", "...", False),
    ],
)
def test_questions_fold_together_when_only_spelling_differs(
    one: str, other: str, same: bool
) -> None:
    assert (questions.fold(one) == questions.fold(other)) is same
