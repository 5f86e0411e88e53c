"""How costs read, and that they arrive as they were sent."""

from __future__ import annotations

import pytest

from shared import costs
from shared.rpc import cost_messages


@pytest.mark.parametrize(
    ("spent", "text"),
    [
        (costs.NOTHING, ""),
        (costs.Spent(1, 1_000, 200), "1 call, 1,200 tokens"),
        (costs.Spent(3, 4_000, 210, 0.0231), "3 calls, 4,210 tokens, $0.0231"),
        (
            costs.Spent(2, 10, 5, 0.5, unpriced_calls=1, estimated_calls=1),
            "2 calls, about 15 tokens, about $0.5000, price of 1 unknown",
        ),
    ],
)
def test_costs_are_told_when_something_was_asked(spent: costs.Spent, text: str) -> None:
    assert str(spent) == text
    assert cost_messages.told(cost_messages.message(spent)) == spent
