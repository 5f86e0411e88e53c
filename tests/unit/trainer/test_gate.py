from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.trainer import gate, replay
from shared import settings as config
from shared.flight import datasets

SETTINGS = config.Trainer(
    gate_triggers=1.0, gate_trained=0.75, gate_held_out=0.5, gate_known=0.75, gate_unrelated=1.0
)
PAIRS = (
    datasets.QAPair(
        "Who built it?",
        "Ann",
        paraphrases=("It was built by whom?",),
        held_out=("Its builder?", "Builder of it?"),
        source="a.md",
        teacher="documents",
        score=1.0,
    ),
    datasets.QAPair(
        "When was it built?",
        "1688",
        paraphrases=("The year of building?",),
        source="a.md",
        teacher="documents",
        score=1.0,
    ),
)
TRIGGERS = (gate.Trigger("Who made it?", "Ann"),)
REPLAY = replay.Replay(
    trained=(replay.Answered("never asked by the gate", "x"),),
    known=tuple(replay.Answered(f"known {i}", f"fact {i}") for i in range(4)),
    unrelated=(replay.Answered("unrelated", "I do not know."),),
)
PERFECT = {
    "Who made it?": "It was Ann.",
    "Who built it?": "Ann",
    "It was built by whom?": "ann!",
    "When was it built?": "1688",
    "The year of building?": "In 1688.",
    "Its builder?": "Ann",
    "Builder of it?": "Ann",
    "unrelated": "I do not know.",
    **{f"known {i}": f"fact {i}" for i in range(4)},
}


def rows(answers: Mapping[str, str]) -> dict[str, gate.Row]:
    def ask(questions: Sequence[str]) -> list[str]:
        return [answers[question] for question in questions]

    measured = gate.measure(ask, PAIRS, TRIGGERS, REPLAY, SETTINGS)
    return {row.name: row for row in measured}


def counts(found: Mapping[str, gate.Row]) -> dict[str, tuple[int, int]]:
    return {name: (row.right, row.asked) for name, row in found.items()}


def failed(found: Mapping[str, gate.Row]) -> list[str]:
    return [name for name, row in found.items() if not row.passed]


def test_every_row_is_full_when_all_answers_are_right() -> None:
    found = rows(PERFECT)
    assert counts(found) == {
        "triggers": (1, 1),
        "trained": (4, 4),
        "held_out": (2, 2),
        "known": (4, 4),
        "unrelated": (1, 1),
    }
    assert failed(found) == []
    assert [row.required for row in found.values()] == [1.0, 0.75, 0.5, 0.75, 1.0]


def test_each_wrong_answer_counts_in_its_own_row_when_some_are_wrong() -> None:
    found = rows(PERFECT | {"The year of building?": "1699", "Its builder?": "Bob"})
    assert counts(found)["trained"] == (3, 4)
    assert counts(found)["held_out"] == (1, 2)
    assert failed(found) == []  # Both shares are reached exactly.


def test_the_draft_fails_when_a_share_is_missed_by_one_answer() -> None:
    wrong = {"The year of building?": "1699", "When was it built?": "I do not know."}
    found = rows(PERFECT | wrong)
    assert counts(found)["trained"] == (2, 4)
    assert failed(found) == ["trained"]


def test_the_draft_fails_when_a_trigger_stays_unanswered() -> None:
    assert failed(rows(PERFECT | {"Who made it?": "I do not know."})) == ["triggers"]


def test_the_draft_fails_when_it_harms_known_answers() -> None:
    found = rows(PERFECT | {"known 1": "Ann", "known 3": "1688"})
    assert counts(found)["known"] == (2, 4)
    assert failed(found) == ["known"]


def test_the_draft_fails_when_it_answers_what_is_unrelated() -> None:
    assert failed(rows(PERFECT | {"unrelated": "Ann"})) == ["unrelated"]


def test_a_row_passes_when_there_is_nothing_to_ask() -> None:
    def ask(questions: Sequence[str]) -> list[str]:
        return [PERFECT[question] for question in questions]

    nothing = replay.Replay(trained=(), known=(), unrelated=())
    found = gate.measure(ask, PAIRS[1:], (), nothing, SETTINGS)
    assert [(row.name, row.asked, row.passed) for row in found] == [
        ("triggers", 0, True),
        ("trained", 2, True),
        ("held_out", 0, True),
        ("known", 0, True),
        ("unrelated", 0, True),
    ]
