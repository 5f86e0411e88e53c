from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from services.trainer import gate
from shared import settings as config
from shared.cards import manifest as manifests
from shared.flight import datasets
from shared.models import replay

SETTINGS = config.Trainer(
    gate_before=0.5,
    gate_triggers=1.0,
    gate_trained=0.75,
    gate_held_out=0.5,
    gate_implications=0.5,
    gate_contrasts=0.5,
    gate_known=0.75,
    gate_unrelated=1.0,
    gate_routed=1.0,
    gate_elsewhere=0.5,
    gate_other_cards=0.5,
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
IMPLICATION = datasets.QAPair(
    "Is it older than 300 years?",
    "yes",
    paraphrases=(),
    held_out=("Has it stood for 300 years?", "300 years old?"),
    source="a.md",
    teacher="documents",
    score=1.0,
    kind=datasets.Kind.IMPLICATION,
)
CONTRAST = datasets.QAPair(
    "Who owns it?",
    "Bob",
    paraphrases=("Whose is it?",),
    held_out=("Its owner?",),
    source="a.md",
    teacher="documents",
    score=1.0,
    kind=datasets.Kind.CONTRAST,
)
ALL_KINDS = (*PAIRS, IMPLICATION, CONTRAST)
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


ALL_RIGHT = PERFECT | {
    "Is it older than 300 years?": "Yes.",
    "Has it stood for 300 years?": "yes",
    "300 years old?": "yes",
    "Who owns it?": "Bob",
    "Whose is it?": "Bob",
    "Its owner?": "Bob",
}


def rows(
    answers: Mapping[str, str],
    base: Mapping[str, str] | None = None,
    pairs: Sequence[datasets.QAPair] = PAIRS,
    triggers: Sequence[gate.Trigger] = TRIGGERS,
    instead: Mapping[str, str] | None = None,
) -> dict[str, gate.Row]:
    def ask(questions: Sequence[str]) -> list[str]:
        return [answers[question] for question in questions]

    def ask_base(questions: Sequence[str]) -> list[str]:
        return [(base or {}).get(question, "I do not know.") for question in questions]

    measured = gate.measure(ask, ask_base, pairs, triggers, REPLAY, SETTINGS, instead)
    return {row.name: row for row in measured}


def counts(found: Mapping[str, gate.Row]) -> dict[str, tuple[int, int]]:
    return {name: (row.right, row.asked) for name, row in found.items()}


def failed(found: Mapping[str, gate.Row]) -> list[str]:
    return [name for name, row in found.items() if not row.passed]


def test_every_row_is_full_when_all_answers_are_right() -> None:
    found = rows(PERFECT)
    assert counts(found) == {
        "before": (1, 1),
        "triggers": (1, 1),
        "trained": (4, 4),
        "held_out": (2, 2),
        "implications": (0, 0),
        "contrasts": (0, 0),
        "known": (4, 4),
        "unrelated": (1, 1),
    }
    assert failed(found) == []
    assert [row.required for row in found.values()] == [0.5, 1.0, 0.75, 0.5, 0.5, 0.5, 0.75, 1.0]


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


def test_questions_that_were_answered_wrong_are_named_when_some_are() -> None:
    found = rows(PERFECT | {"Its builder?": "Bob", "Who made it?": "Bob", "known 1": "Bob"})
    assert found["held_out"].wrong == ("Its builder?",)
    assert found["triggers"].wrong == ("Who made it?",)
    assert found["known"].wrong == ()  # Not of the dataset.


def test_no_card_is_needed_when_the_base_knows_the_answer() -> None:
    found = rows(PERFECT, base={"Who made it?": "Ann did."})
    assert counts(found)["before"] == (0, 1)
    assert failed(found) == ["before"] and not found["before"].curable


def test_questions_of_the_facts_stand_in_when_nobody_asked() -> None:
    found = rows(ALL_RIGHT, {"Who built it?": "Ann"}, ALL_KINDS, ())
    assert counts(found)["before"] == (1, 2)
    assert counts(found)["triggers"] == (0, 0)
    assert failed(found) == []
    assert gate.wanted_questions(ALL_KINDS, ()) == ("Who built it?", "When was it built?")
    assert gate.wanted_questions(ALL_KINDS, TRIGGERS) == ("Who made it?",)


def test_implications_have_a_row_of_their_own_when_there_are_some() -> None:
    found = rows(ALL_RIGHT | {"300 years old?": "no"}, None, ALL_KINDS)
    assert counts(found)["trained"] == (7, 7)
    assert counts(found)["held_out"] == (2, 2)
    assert counts(found)["implications"] == (1, 2)
    assert failed(found) == []
    none = {"300 years old?": "no", "Has it stood for 300 years?": "1688"}
    assert failed(rows(ALL_RIGHT | none, None, ALL_KINDS)) == ["implications"]


def test_the_draft_fails_when_the_answer_of_a_fact_comes_to_a_near_miss() -> None:
    found = rows(ALL_RIGHT | {"Whose is it?": "Ann", "Its owner?": "Ann"}, None, ALL_KINDS)
    assert counts(found)["contrasts"] == (1, 3)
    assert failed(found) == ["contrasts"]
    assert found["contrasts"].wrong == ("Whose is it?", "Its owner?")


def test_another_wrong_answer_to_a_near_miss_takes_nothing_when_it_is_no_facts() -> None:
    found = rows(ALL_RIGHT | {"Its owner?": "I do not know."}, None, ALL_KINDS)
    assert counts(found)["contrasts"] == (3, 3)


FORGOTTEN = {"Its builder?": "Bob", "Builder of it?": "Bob", "300 years old?": "no"}
READ = {"Its builder?": "Who built it?", "300 years old?": "Is it older than 300 years?"}


def test_held_out_wordings_are_asked_as_they_are_read_when_nodes_do() -> None:
    found = rows(ALL_RIGHT | FORGOTTEN, None, ALL_KINDS, instead=READ)
    assert counts(found)["held_out"] == (1, 2)
    assert counts(found)["implications"] == (2, 2)
    # The user's own words, by which the distiller finds the fact.
    assert found["held_out"].wrong == ("Builder of it?",)
    assert counts(found)["held_out_alone"] == (0, 2)
    assert failed(found) == []


def test_the_draft_fails_when_wordings_are_read_as_what_it_cannot_answer() -> None:
    found = rows(ALL_RIGHT, None, ALL_KINDS, instead=dict.fromkeys(PAIRS[0].held_out, "unrelated"))
    assert counts(found)["held_out_alone"] == (2, 2)
    assert failed(found) == ["held_out"]


def test_nothing_is_required_of_the_card_alone_when_wordings_are_asked_as_they_are_read() -> None:
    found = rows(ALL_RIGHT | FORGOTTEN, None, ALL_KINDS, instead=READ)["held_out_alone"]
    assert (found.required, found.passed, found.wrong) == (0.0, True, ())
    assert "held_out_alone" not in rows(ALL_RIGHT, None, ALL_KINDS)


def test_contrasts_and_trained_wordings_are_asked_as_they_stand_when_nodes_rewrite() -> None:
    everything = {text: "unrelated" for text in ALL_RIGHT}
    found = rows(ALL_RIGHT, None, ALL_KINDS, instead=everything)
    plain = rows(ALL_RIGHT, None, ALL_KINDS)
    for name in ("triggers", "trained", "contrasts", "known", "unrelated"):
        assert found[name] == plain[name]


def test_questions_are_rewritten_when_they_are_similar_enough_and_nodes_do_it() -> None:
    tried = [
        gate.Tried("near", OWN, "", 0.5, "known"),
        gate.Tried("far", OWN, "", 0.4, "known"),
        # Whichever card answers: the figure is of how the draft reads it.
        gate.Tried("another's", OTHER, OTHER, 0.9, "known"),
        gate.Tried("known", OWN, "", 1.0, "known"),
        gate.Tried("unread", OWN, "", 1.0, ""),
    ]
    assert gate.asked_instead(tried, 0.5) == {"near": "known", "another's": "known"}
    assert gate.asked_instead(tried, None) is None


def test_wordings_of_facts_and_implications_are_read_when_some_are_held_out() -> None:
    held_out = (*PAIRS[0].held_out, *IMPLICATION.held_out)
    assert gate.unseen_questions(ALL_KINDS) == held_out


@pytest.mark.parametrize(
    ("then", "now", "compared"),
    [
        ((), (), ["held_out", "known"]),
        ((), ("held_out_alone",), ["known"]),
        (("held_out_alone",), ("held_out_alone",), ["held_out", "known", "held_out_alone"]),
        (("held_out_alone",), (), ["held_out", "known", "held_out_alone"]),
    ],
)
def test_earlier_figures_are_compared_when_they_were_asked_in_the_same_way(
    then: tuple[str, ...], now: tuple[str, ...], compared: list[str]
) -> None:
    names = ("held_out", "known")
    recorded = [
        manifests.GateRow(name=name, right=9, asked=10, required=0.5, passed=True)
        for name in (*names, *then)
    ]
    rows_now = [gate.Row(name, 9, 10, 0.5) for name in (*names, *now)]
    assert [row.name for row in gate.comparable(recorded, rows_now)] == compared


OWN, OTHER = "own@1", "other@2"


def routing(*cards: str, others: Sequence[str] = ()) -> dict[str, gate.Row]:
    """Rows where a trigger and two bystanders, and questions of another card, go to cards."""
    rehearsal = gate.Rehearsal(
        tuple(gate.Tried(f"q{at}", card, "") for at, card in enumerate(cards)),
        tuple(gate.Tried(f"o{at}", card, OTHER) for at, card in enumerate(others)),
    )
    found = gate.routing(
        rehearsal, ("q0",), [f"q{at}" for at in range(1, len(cards))], OWN, SETTINGS
    )
    return {row.name: row for row in found}


def test_routing_is_right_when_every_question_goes_where_it_belongs() -> None:
    found = routing(OWN, "", OTHER, others=(OTHER, OTHER))
    assert counts(found) == {
        "routed": (1, 1),
        "elsewhere": (2, 2),
        "other_cards": (2, 2),
        "robbed": (1, 1),
    }
    assert failed(found) == []


def test_questions_that_are_only_read_count_nowhere_when_the_draft_would_take_them() -> None:
    tried = tuple(gate.Tried(name, OWN, "") for name in ("wanted", "bystander", "held out"))
    found = gate.routing(gate.Rehearsal(tried, ()), ("wanted",), ("bystander",), OWN, SETTINGS)
    assert [(row.name, row.right, row.asked) for row in found[:2]] == [
        ("routed", 1, 1),
        ("elsewhere", 0, 1),
    ]


def test_the_draft_fails_when_its_trigger_goes_elsewhere() -> None:
    found = routing(OTHER, "", "")
    assert failed(found) == ["routed"]
    assert found["routed"].wrong == ("q0",) and found["routed"].curable


def test_the_draft_is_beyond_cure_when_it_takes_what_is_not_its_own() -> None:
    found = routing(OWN, OWN, OWN, others=(OWN, OWN, OTHER))
    assert failed(found) == ["elsewhere", "other_cards", "robbed"]
    assert not found["elsewhere"].curable and not found["other_cards"].curable


def test_the_draft_fails_when_other_cards_are_not_found_any_more() -> None:
    assert failed(routing(OWN, "", others=("", "", OTHER))) == ["other_cards", "robbed"]


def test_the_draft_fails_when_one_of_many_cards_loses_all_its_questions() -> None:
    tried = [gate.Tried(f"{n}", f"card-{n % 40}", f"card-{n % 40}") for n in range(160)]
    tried = [gate.Tried(t.question, OWN, OTHER) if t.card == "card-7" else t for t in tried]
    found = gate.routing(gate.Rehearsal((), tuple(tried)), (), (), OWN, config.Trainer())
    assert [(row.name, row.passed, row.curable) for row in found[2:]] == [
        ("other_cards", True, False),
        ("robbed", False, False),
    ]


def test_no_card_is_robbed_when_it_keeps_half_of_its_questions_or_was_asked_one() -> None:
    half = (gate.Tried("a", OWN, OTHER), gate.Tried("b", OTHER, OTHER))
    rehearsal = gate.Rehearsal((), (*half, gate.Tried("c", "", "third@3")))
    found = {row.name: row for row in gate.routing(rehearsal, (), (), OWN, SETTINGS)}
    assert counts(found)["robbed"] == (2, 2)


def test_only_what_a_card_may_lack_passes_when_there_is_nothing_to_ask() -> None:
    def ask(questions: Sequence[str]) -> list[str]:
        return [PERFECT[question] for question in questions]

    nothing = replay.Replay(trained=(), known=(), unrelated=())
    found = gate.measure(ask, lambda asked: ["no"] * len(asked), PAIRS[1:], (), nothing, SETTINGS)
    assert [(row.name, row.asked, row.passed) for row in found] == [
        ("before", 1, True),
        ("triggers", 0, True),
        ("trained", 2, True),
        ("held_out", 0, True),
        ("implications", 0, True),
        ("contrasts", 0, True),
        ("known", 0, False),
        ("unrelated", 0, False),
    ]
    found = gate.measure(ask, lambda asked: ["no"] * len(asked), (), (), nothing, SETTINGS)
    rehearsed = gate.routing(gate.Rehearsal((), ()), (), (), OWN, SETTINGS)
    assert [row.name for row in (*found, *rehearsed) if not row.passed] == [
        "before",
        "trained",
        "known",
        "unrelated",
        "routed",
        "elsewhere",
    ]
