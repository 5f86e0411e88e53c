"""Submissions that wait on a node's disk."""

from __future__ import annotations

import pathlib

import pytest

from services.inference.agents import outbox
from shared import errors


def test_submissions_wait_in_order_when_the_node_starts_again(tmp_path: pathlib.Path) -> None:
    box = outbox.Outbox(tmp_path, most_bytes=100)
    for sequence in (10, 2, 9):
        box.put("ada", sequence, b"%d" % sequence)
    box.put("bob", 1, b"b")
    box.settle("ada", 2)
    # A process that was killed while it wrote leaves such a file.
    (tmp_path / "ada" / ".xyz.part").write_bytes(b"half")
    again = outbox.Outbox(tmp_path, most_bytes=100)
    assert again.waiting("ada") == [9, 10] and again.waiting("bob") == [1]
    assert again.read("ada", 10) == b"10" and again.size_bytes == 4
    assert not (tmp_path / "ada" / ".xyz.part").exists()


def test_submission_is_refused_when_there_is_no_room_until_others_are_settled(
    tmp_path: pathlib.Path,
) -> None:
    box = outbox.Outbox(tmp_path, most_bytes=5)
    box.put("ada", 1, b"larger than all")
    assert not box.has_room(1)
    with pytest.raises(errors.OverloadedError, match="waiting_mib"):
        box.put("ada", 2, b"x")
    box.settle("ada", 1)
    box.put("ada", 2, b"x")
    assert box.waiting("ada") == [2]


def test_first_content_stays_when_a_sequence_is_put_again(tmp_path: pathlib.Path) -> None:
    box = outbox.Outbox(tmp_path, most_bytes=5)
    box.put("ada", 1, b"one")
    box.put("ada", 1, b"another")
    assert box.read("ada", 1) == b"one"
    box.put("ada", 1, b"in its place", replace=True)
    assert box.read("ada", 1) == b"in its place" and box.size_bytes == 12


def test_nothing_of_an_agent_waits_when_it_is_forgotten(tmp_path: pathlib.Path) -> None:
    box = outbox.Outbox(tmp_path, most_bytes=50)
    box.put("ada", 1, b"one")
    box.put("bob", 1, b"one")
    box.forget("ada")
    assert outbox.Outbox(tmp_path, 50).waiting("ada") == [] and box.waiting("bob") == [1]
