"""What is kept of agents: bounds, and that a killed process leaves whole steps alone."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys

import pytest

from services.inference.agents import feedback, ledger
from shared import errors
from shared.hierarchy import agent_state
from tests.unit.inference.agents import committing
from tests.unit.inference.agents.committing import AGENT

PAIR = feedback.Pair("Who?", "Ada.")
OTHER, THIRD = feedback.Pair("When?", "Then."), feedback.Pair("Where?", "There.")


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
    learned = len(kept.lessons(AGENT))
    assert record.revision <= learned == record.examples <= record.revision + 1
    assert kept.counts() == {AGENT: committing.PAIRS // 10 - learned}
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


def test_pair_is_a_lesson_once_it_is_learned_and_told_once_it_is_given_up(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR, OTHER, THIRD], 2)
    first, second, third = kept.queued("ada", 10)
    kept.commit(kept.records()[0], b"1", [first, second])
    assert [(one.taken, one.left) for one in kept.queued("ada", 10)] == [(1, 1), (1, 1), (0, 2)]
    assert (kept.lessons("ada"), kept.state("ada")) == ({}, b"1")
    left = {first.id: None, second.id: feedback.Reason.ROUNDS}
    assert kept.leave("ada", left) == kept.leave("ada", left) == 1
    assert kept.lessons("ada") == {first.id: PAIR}
    assert kept.given_up("ada", 9) == [feedback.GivenUp(OTHER, feedback.Reason.ROUNDS)]
    assert kept.given_up_counts() == {"ada": 1}
    assert [one.id for one in kept.queued("ada", 10)] == [third.id]
    assert kept.commit(kept.records()[0], b"2").examples == 1


@pytest.mark.parametrize("stands", ["queued", "learned", "given up"])
def test_question_told_again_replaces_its_answer_wherever_it_stands(tmp_path, stands):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR], 1)
    kept.give("bob", "", [PAIR], 1)
    (old,) = kept.queued("ada", 1)
    if stands != "queued":
        kept.leave("ada", {old.id: None if stands == "learned" else feedback.Reason.ROUNDS})
    corrected = feedback.Pair(PAIR.question, "Bob.")
    assert kept.give("ada", "", [PAIR, corrected], 3) == feedback.Given(1, 1)
    (new,) = kept.queued("ada", 9)
    assert (new.pair, new.left) == (corrected, 3)
    assert (kept.lessons("ada"), kept.given_up("ada", 9)) == ({}, [])
    # A round that was under way with the old one changes nothing of the new one.
    kept.commit(kept.records()[0], b"s", [old])
    kept.leave("ada", {old.id: None})
    assert (kept.queued("ada", 9), kept.lessons("ada")) == ([new], {})
    assert [one.pair for one in kept.queued("bob", 9)] == [PAIR]


def test_lesson_that_is_lost_again_and_again_is_contested(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR], 1)
    for again in (1, 1, 0):
        (one,) = kept.queued("ada", 1)
        assert kept.leave("ada", {one.id: None}) == 1  # It does not count twice.
        assert kept.looked("ada", [], [one.id], 5, 2) == again
    assert kept.queued("ada", 1) == [] and kept.lessons("ada") == {}
    assert kept.given_up("ada", 9) == [feedback.GivenUp(PAIR, feedback.Reason.CONTESTED)]


def test_lesson_that_is_remembered_may_be_lost_again(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR], 1)
    for _ in range(5):
        (one,) = kept.queued("ada", 1)
        kept.leave("ada", {one.id: None})
        kept.looked("ada", [one.id], [], 5, 1)
        assert kept.looked("ada", [], [one.id], 5, 1) == 1


def test_file_of_before_is_taken_over(tmp_path):
    path = tmp_path / "agents.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(
            "CREATE TABLE feedback (id INTEGER PRIMARY KEY AUTOINCREMENT, agent TEXT NOT NULL, "
            "question TEXT NOT NULL, answer TEXT NOT NULL, rounds INTEGER NOT NULL);"
            "CREATE TABLE lessons (id INTEGER PRIMARY KEY, agent TEXT NOT NULL, "
            "question TEXT NOT NULL, answer TEXT NOT NULL);"
            "INSERT INTO feedback VALUES (7, 'ada', 'Who?', 'Ada.', 8);"
        )
    kept = _ledger(tmp_path)
    assert kept.queued("ada", 9) == [feedback.Queued(7, PAIR, 0, 8)]
    kept.leave("ada", {7: None})
    assert kept.lessons("ada") == {7: PAIR}


def test_newest_lessons_stay_when_there_are_too_many(tmp_path):
    kept = _ledger(tmp_path)
    for number in range(4):
        kept.give("ada", "", [feedback.Pair(f"q{number}", "a")], 1)
        kept.leave("ada", {one.id: None for one in kept.queued("ada", 1)})
    assert [one.question for one in kept.lessons("ada").values()] == ["q2", "q3"]


def test_nothing_is_taken_when_a_part_of_it_would_be_too_much(tmp_path):
    kept = _ledger(tmp_path)
    kept.give("ada", "", [PAIR, OTHER], 1)
    more = feedback.Pair("How?", "So.")
    with pytest.raises(errors.OverloadedError):
        kept.give("ada", "k", [feedback.Pair(PAIR.question, "Bob."), THIRD, more], 1)
    assert [one.pair for one in kept.queued("ada", 9)] == [PAIR, OTHER]
    # The key was not taken either.
    assert kept.give("ada", "k", [THIRD], 1) == feedback.Given(1, 3)
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
