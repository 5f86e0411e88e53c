"""An agent that learns and commits for ever, and tells each commit: to be killed in between.

    python -m tests.unit.inference.agents.committing FILE

After so many commits the agent is a function of their number.
"""

from __future__ import annotations

import pathlib
import sys

from services.inference.agents import feedback, ledger
from shared.hierarchy import agent, agent_state, levels, messages, wire
from tests import fake_layers

MODULE = "tests.unit.inference.agents.committing"
AGENT, PAIRS = "ada", 10_000


def opened(path: pathlib.Path) -> ledger.Ledger:
    return ledger.Ledger(path, 4, PAIRS, PAIRS)


def made() -> agent.AgentLayers:
    return agent.AgentLayers(AGENT, fake_layers.FRAME)


def step(own: agent.AgentLayers, number: int) -> tuple[int, bytes]:
    """Settles the submission before, and makes another."""
    if own.unsettled:
        at = own.unsettled[0].sequence
        settled = messages.Settlement(AGENT, at, number, messages.Mark.NORMAL, 0.5, {})
        own.settle(settled)
    deltas = {
        level: fake_layers.layer(fake_layers.SPECS[level].rank, number)
        for level in (*levels.PRIVATE, levels.Level.SWARM)
    }
    shared = {levels.Level.SWARM: deltas.pop(levels.Level.SWARM)}
    own.learned(number, shared, deltas, 1)
    submission = own.submission()
    assert submission is not None
    return submission.sequence, wire.submission_to_bytes(submission)


def main(path: pathlib.Path) -> None:
    kept, own = opened(path), made()
    kept.give(AGENT, "", [feedback.Pair(f"q{at}", "a") for at in range(PAIRS // 10)], 1)
    for number in range(1, PAIRS // 10):
        outgoing = step(own, number)
        learned = kept.queued(AGENT, 1)
        record = ledger.Record(AGENT, number, rounds=number, examples=number - 1)
        kept.leave(AGENT, {one.id: None for one in learned})
        kept.commit(record, agent_state.to_bytes(own), (), outgoing)
        print(number, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
