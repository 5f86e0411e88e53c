"""What the hierarchy remembers of its agents."""

from __future__ import annotations

import json

import pytest

from services.hierarchy import accounts
from shared.hierarchy import messages
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


def settlement(sequence: int, agent: str = "ada", **changed: object) -> messages.Settlement:
    fields: dict[str, object] = {
        "agent": agent,
        "sequence": sequence,
        "version": sequence,
        "mark": messages.Mark.FAST_TRACK,
        "alignment": 0.25,
        "factors": {Level.AGENT: 1.5},
    }
    return messages.Settlement(**(fields | changed))  # type: ignore[arg-type]


def test_an_agent_that_never_submitted_has_nothing() -> None:
    held = accounts.Accounts(4)
    assert held.names() == [] and held.settled("ada") == 0
    assert held.settlements("ada", 0) == () and held.totals("ada") == (0, 0, 0)
    held.forget("ada", 7)
    assert held.names() == []


def test_examples_and_refusals_add_up() -> None:
    held = accounts.Accounts(4)
    held.settle(settlement(1), 3)
    held.settle(settlement(4, refused="too old"), 2)
    held.settle(settlement(1, "eve"), 1)
    assert held.names() == ["ada", "eve"]
    assert held.totals("ada") == (4, 5, 1) and held.settled("eve") == 1


def test_circuits_that_moved_are_told_once_with_the_next_settlement() -> None:
    held = accounts.Accounts(4)
    held.note_moved(making.circuit("ada:1"))
    held.note_moved(making.circuit("ada:2"))
    told = [held.settle(settlement(at), 0).moved for at in (1, 2)]
    assert told == [("ada:1", "ada:2"), ()]


def test_settlements_are_kept_until_they_are_taken() -> None:
    held = accounts.Accounts(4)
    for at in (1, 2, 3):
        held.settle(settlement(at), 0)
    assert [one.sequence for one in held.settlements("ada", 1)] == [2, 3]
    held.forget("ada", 2)
    assert [one.sequence for one in held.settlements("ada", 0)] == [3]
    assert held.settled("ada") == 3


def test_circuits_that_moved_are_told_when_the_settlement_that_said_so_went_for_want_of_room() -> (
    None
):
    held = accounts.Accounts(2)
    for at in range(1, 6):
        held.note_moved(making.circuit(f"ada:{at}"))
        held.settle(settlement(at), 0)
    kept = held.settlements("ada", 0)
    assert [one.sequence for one in kept] == [4, 5]
    assert [one.moved for one in kept] == [("ada:1", "ada:2", "ada:3", "ada:4"), ("ada:5",)]


def test_accounts_are_the_same_after_plain_values() -> None:
    held = accounts.Accounts(3)
    for at in range(1, 5):
        held.settle(settlement(at, waiting=("ada:9",), refused="" if at % 2 else "late"), at)
    held.settle(settlement(2, "eve"), 1)
    held.note_moved(making.circuit("eve:3"))
    values = json.loads(json.dumps(held.values()))
    again = accounts.Accounts(3)
    again.settle(settlement(1, "gone"), 1)
    again.restore(values)
    assert again.names() == held.names()
    for agent in held.names():
        assert again.settlements(agent, 0) == held.settlements(agent, 0)
        assert again.totals(agent) == held.totals(agent)
    one, other = (each.settle(settlement(3, "eve"), 0) for each in (held, again))
    assert one == other and one.moved == ("eve:3",)


@pytest.mark.parametrize("after", [0, 1])
def test_values_taken_before_do_not_change_when_accounts_go_on(after: int) -> None:
    held = accounts.Accounts(3)
    held.settle(settlement(1), 1)
    held.note_moved(making.circuit("ada:1"))
    values = held.values()
    before = json.dumps(values)
    held.forget("ada", after)
    held.settle(settlement(2), 1)
    assert json.dumps(values) == before
