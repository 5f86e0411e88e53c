"""What the hierarchy remembers of each agent: the last submission settled, and what it was told.

Part of the state that a tick commits, so that a submission counts once whatever crashes. Knows
nothing of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from shared.hierarchy import levels, messages


@dataclasses.dataclass
class _Account:
    settled: int = 0
    """The last sequence that a tick settled."""
    examples: int = 0
    refused: int = 0
    untold: list[str] = dataclasses.field(default_factory=list)
    """Circuits that moved since the last settlement."""
    settlements: list[messages.Settlement] = dataclasses.field(default_factory=list)


class Accounts:
    """All agents that ever submitted."""

    def __init__(self, most_settlements: int) -> None:
        """Empty.

        Args:
            most_settlements: of one agent that are kept until it took them; the oldest go first.
        """
        self._most_settlements = most_settlements
        self._accounts: dict[str, _Account] = {}

    def names(self) -> list[str]:
        """All agents, in order."""
        return sorted(self._accounts)

    def settled(self, agent: str) -> int:
        """The last sequence of an agent that a tick settled; 0 before the first."""
        return self._accounts[agent].settled if agent in self._accounts else 0

    def note_moved(self, circuit: messages.Circuit) -> None:
        """An agent's circuit is in the swarm now: its next settlement says so."""
        account = self._accounts.setdefault(circuit.agent, _Account())
        account.untold.append(circuit.id)

    def settle(self, settlement: messages.Settlement, examples: int) -> messages.Settlement:
        """Books a settlement, with the circuits that moved since the last one.

        What a settlement says of circuits that moved outlives it: an agent that did not hear of
        one would keep what the swarm has, too.
        """
        account = self._accounts.setdefault(settlement.agent, _Account())
        told = dataclasses.replace(settlement, moved=tuple(account.untold))
        account.untold = []
        account.settled = settlement.sequence
        account.examples += examples
        account.refused += bool(settlement.refused)
        kept = [*account.settlements, told]
        gone, kept = kept[: -self._most_settlements], kept[-self._most_settlements :]
        if lost := [circuit for one in gone for circuit in one.moved]:
            kept[0] = dataclasses.replace(kept[0], moved=(*lost, *kept[0].moved))
        account.settlements = kept
        return told

    def settlements(self, agent: str, after: int) -> tuple[messages.Settlement, ...]:
        """Those of an agent above a sequence, in order."""
        account = self._accounts.get(agent)
        return tuple(one for one in account.settlements if one.sequence > after) if account else ()

    def forget(self, agent: str, after: int) -> None:
        """Drops settlements that the agent took: those up to a sequence."""
        if account := self._accounts.get(agent):
            account.settlements = [one for one in account.settlements if one.sequence > after]

    def totals(self, agent: str) -> tuple[int, int, int]:
        """Of an agent: the last sequence settled, examples learned from, submissions refused."""
        account = self._accounts.get(agent, _Account())
        return account.settled, account.examples, account.refused

    def values(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {
            agent: {
                "settled": account.settled,
                "examples": account.examples,
                "refused": account.refused,
                "untold": list(account.untold),
                "settlements": [_plain(one) for one in account.settlements],
            }
            for agent, account in self._accounts.items()
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes what `values` gave in place of what it holds."""
        self._accounts = {
            agent: _Account(
                **fields
                | {
                    "untold": list(fields["untold"]),
                    "settlements": [_settlement(one) for one in fields["settlements"]],
                }
            )
            for agent, fields in sorted(values.items())
        }


_FIELDS = tuple(field.name for field in dataclasses.fields(messages.Settlement))


def _plain(settlement: messages.Settlement) -> dict[str, Any]:
    # As `dataclasses.asdict`, which takes twenty times as long, for thousands of them in a tick.
    return {name: getattr(settlement, name) for name in _FIELDS} | {
        "factors": dict(settlement.factors)
    }


def _settlement(values: Mapping[str, Any]) -> messages.Settlement:
    factors = {levels.Level(level): by for level, by in values["factors"].items()}
    return messages.Settlement(
        **dict(values)
        | {
            "mark": messages.Mark(values["mark"]),
            "factors": factors,
            "moved": tuple(values["moved"]),
            "waiting": tuple(values["waiting"]),
        }
    )
