"""An agent is on one node at a time."""

from __future__ import annotations

import pytest

from services.hierarchy import presence
from shared import errors


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_agent_is_refused_while_another_node_follows_it_or_was_just_heard() -> None:
    clock = _Clock()
    here = presence.Presence(clock)
    here.joined("ada", "north")
    here.joined("ada", "north")
    for join in (here.check, here.joined):
        with pytest.raises(errors.PreconditionError, match="on node north now"):
            join("ada", "south")
    here.joined("bob", "south")
    with here.watching(["ada", "bob"]):
        clock.now_s = 1000.0
        with pytest.raises(errors.PreconditionError, match="another name"):
            here.check("ada", "south")
    # It may be between two watches.
    clock.now_s += 9.0
    with pytest.raises(errors.PreconditionError):
        here.check("ada", "south")


def test_agent_may_move_when_its_node_is_gone() -> None:
    clock = _Clock()
    here = presence.Presence(clock)
    here.joined("ada", "north")
    with here.watching(["ada"]), here.watching(["ada"]):
        pass
    clock.now_s = 11.0
    here.joined("ada", "south")
    with pytest.raises(errors.PreconditionError, match="on node south now"):
        here.check("ada", "north")
