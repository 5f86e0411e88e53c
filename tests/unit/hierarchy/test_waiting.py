from __future__ import annotations

import dataclasses
import pathlib

import pytest
import torch

from services.hierarchy import journal, waiting
from shared import errors
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


def made(kept_in: journal.Journal | None = None) -> waiting.Waiting:
    return waiting.Waiting(making.FRAME, kept_in, most=5, most_per_agent=2)


def test_submission_counts_once_when_it_is_sent_again() -> None:
    held = made()
    assert held.submit(making.submission(sequence=4), lambda _: 3)
    assert not held.submit(making.submission(sequence=4), lambda _: 3)
    assert not held.submit(making.submission(sequence=3), lambda _: 3)
    assert held.last("ada") == 4 and len(held.gather().submissions) == 1


def test_gathered_are_in_order_whatever_the_order_of_arrival() -> None:
    held = made()
    for agent, sequence in (("eve", 1), ("ada", 1), ("eve", 2)):
        held.submit(making.submission(agent, sequence), lambda _: 0)
    found = [(one.agent, one.sequence) for one in held.gather().submissions]
    assert found == [("ada", 1), ("eve", 1), ("eve", 2)]


def test_what_came_during_a_tick_waits_for_the_next() -> None:
    held = made()
    held.submit(making.submission("ada"), lambda _: 0)
    gathered = held.gather()
    held.submit(making.submission("eve"), lambda _: 0)
    held.took(gathered)
    assert [one.agent for one in held.gather().submissions] == ["eve"]


def test_submission_is_refused_when_too_many_wait() -> None:
    held = made()
    for sequence in (1, 2):
        held.submit(making.submission(sequence=sequence), lambda _: 0)
    with pytest.raises(errors.OverloadedError, match="'ada': 2 of its and 2 submissions"):
        held.submit(making.submission(sequence=3), lambda _: 0)
    for agent in ("b", "c", "d"):
        held.submit(making.submission(agent), lambda _: 0)
    with pytest.raises(errors.OverloadedError, match="0 of its and 5 submissions"):
        held.submit(making.submission("e"), lambda _: 0)


def test_what_is_kept_is_nobody_elses() -> None:
    held = made()
    sent = making.submission()
    held.submit(sent, lambda _: 0)
    before = sent.shared[Level.SWARM]["layers.0.q_proj"].a.clone()
    sent.shared[Level.SWARM]["layers.0.q_proj"].a.zero_()
    [kept] = held.gather().submissions
    assert torch.equal(kept.shared[Level.SWARM]["layers.0.q_proj"].a, before)


def test_everything_waits_again_after_a_restart_but_what_the_state_has(
    tmp_path: pathlib.Path,
) -> None:
    first = journal.Journal(tmp_path)
    held = made(first)
    for sequence in (1, 2):
        held.submit(making.submission(sequence=sequence), lambda _: 0)
    for name in ("swarm:1", "swarm:2"):
        held.offer(making.circuit(name, level=Level.SWARM, agent=""))
    first.close()
    second = journal.Journal(tmp_path)
    again = made(second)
    again.load({"ada": 1}, last_circuit=1)
    gathered = again.gather()
    assert [one.sequence for one in gathered.submissions] == [2]
    assert {number: one.id for number, one in gathered.circuits.items()} == {2: "swarm:2"}
    assert sorted(name for name, _ in second.waiting()) == sorted(gathered.names)
    again.offer(making.circuit("swarm:3", level=Level.SWARM))
    assert list(again.gather().circuits) == [2, 3]
    second.close()


def test_nothing_is_kept_when_it_does_not_fit(tmp_path: pathlib.Path) -> None:
    kept_in = journal.Journal(tmp_path)
    held = made(kept_in)
    wrong = dataclasses.replace(making.submission(), sequence=0)
    with pytest.raises(errors.InvalidInputError):
        held.submit(wrong, lambda _: 0)
    with pytest.raises(errors.InvalidInputError):
        held.offer(making.circuit(channels={}))
    assert list(kept_in.waiting()) == [] and held.gather().circuits == {}
    kept_in.close()


def test_what_was_taken_is_read_again_when_the_limit_on_circuits_is_lower_now(
    tmp_path: pathlib.Path,
) -> None:
    kept = journal.Journal(tmp_path)
    circuits = tuple(making.circuit(f"ada:{at}", seed=at) for at in range(3))
    made(kept).submit(making.submission(circuits=circuits), lambda _: 0)
    frame = dataclasses.replace(making.FRAME, most_circuits=2)
    again = waiting.Waiting(frame, kept, most=5, most_per_agent=2)
    again.load({}, 0)
    [one] = again.gather().submissions
    assert [circuit.id for circuit in one.circuits] == ["ada:0", "ada:1", "ada:2"]
    with pytest.raises(errors.InvalidInputError, match="at most 2"):
        again.submit(making.submission(sequence=2, circuits=circuits), lambda _: 0)
    kept.close()
