"""What is kept of agents: bounds, and that a killed process leaves whole steps alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.inference.agents import feedback, ledger
from shared import errors
from shared.hierarchy import agent_state
from tests.unit.inference.agents import committing
from tests.unit.inference.agents.committing import AGENT

PAIR = feedback.Pair("Who?", "Ada.")


@pytest.mark.parametrize("after", [1, 7])
def test_killed_process_leaves_the_state_of_a_whole_step(tmp_path, after):
    path = tmp_path / "agents.sqlite"
    command = [sys.executable, "-m", committing.MODULE, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(after):
        told = int(child.stdout.readline())
    child.kill()
    child.wait()
    told = max([told, *map(int, child.stdout.read().split())])
    child.stdout.close()
    kept = committing.opened(path)
    (record,) = kept.records()
    # What was told is there; one more step may be, that nobody heard of.
    assert told <= record.revision <= told + 1
    expected, outgoing = committing.made(), []
    for number in range(1, record.revision + 1):
        outgoing.append((AGENT, *committing.step(expected, number)))
    assert kept.state(AGENT) == agent_state.to_bytes(expected)
    assert kept.outgoing() == outgoing
    assert len(kept.lessons(AGENT)) == record.examples == record.revision
    assert kept.counts() == {AGENT: committing.PAIRS // 10 - record.revision}
    again = committing.made()
    state = kept.state(AGENT)
    assert state is not None
    agent_state.restore(again, state)
    # The restored agent's next step is that of the one that never died.
    assert committing.step(again, 100) == committing.step(expected, 100)
    assert agent_state.to_bytes(again) == agent_state.to_bytes(expected)
    kept.close()


def _ledger(path, most_agents=2, most_queued=3, most_lessons=2):
    return ledger.Ledger(path / "agents.sqlite", most_agents, most_queued, most_lessons)


def test_pair_is_a_lesson_once_it_took_part_in_all_its_rounds(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR, feedback.Pair("When?", "Then.")], 2)
    record = kept.records()[0]
    first, second = kept.queued("ada", 10)
    record = kept.commit(record, b"1", [first, second])
    assert (kept.lessons("ada"), record.examples) == ([], 0)
    record = kept.commit(record, b"2", [first])
    assert (kept.lessons("ada"), record.examples) == ([PAIR], 1)
    assert [one.id for one in kept.queued("ada", 10)] == [second.id]
    assert kept.state("ada") == b"2"


def test_newest_lessons_stay_when_there_are_too_many(tmp_path):
    kept = _ledger(tmp_path)
    for number in range(4):
        kept.give("ada", "", [feedback.Pair(f"q{number}", "a")], 1)
        kept.commit(kept.records()[0], b"s", kept.queued("ada", 1))
    assert [one.question for one in kept.lessons("ada")] == ["q2", "q3"]


def test_nothing_is_taken_when_a_part_of_it_would_be_too_much(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR] * 2, 1)
    with pytest.raises(errors.OverloadedError):
        kept.give("ada", "k", [PAIR] * 2, 1)
    assert kept.counts() == {"ada": 2}
    # The key was not taken either.
    assert kept.give("ada", "k", [PAIR], 1) == feedback.Given(1, 3)
    kept.give("bob", "", [PAIR], 1)
    with pytest.raises(errors.CapacityError):
        kept.give("cid", "", [PAIR], 1)
    assert [one.agent for one in kept.records()] == ["ada", "bob"]


def test_forgotten_agent_leaves_nothing_but_its_revision(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "k", [PAIR], 1)
    record = kept.commit(ledger.Record("ada", 7), b"s", [], (1, b"x"))
    assert kept.forget("ada") and not kept.forget("ada")
    assert (kept.records(), kept.outgoing(), kept.counts(), kept.state("ada")) == ([], [], {}, None)
    with pytest.raises(errors.NotFoundError):
        kept.commit(record, b"s")
    assert kept.give("ada", "k", [PAIR], 1) == feedback.Given(1, 1)
    assert kept.records() == [ledger.Record("ada", 8)]


def test_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "agents.sqlite").write_text("no database, but longer than its header" * 9)
    with pytest.raises(errors.ConfigError, match="move it away"):
        _ledger(tmp_path)
