from __future__ import annotations

from collections.abc import Sequence

from services.trainer import regression
from shared.flight import datasets


def pair(
    question: str,
    answer: str,
    *paraphrases: str,
    score: float = 1.0,
    kind: datasets.Kind = datasets.Kind.FACT,
    held_out: tuple[str, ...] = (),
) -> datasets.QAPair:
    return datasets.QAPair(
        question, answer, paraphrases, "a.md", "documents", score, held_out, kind
    )


BUILT = pair("Who built it?", "Ann", "By whom was it built?")


def test_every_trained_wording_is_due_when_the_new_dataset_says_nothing_else() -> None:
    due = [("Who built it?", "Ann"), ("By whom was it built?", "Ann")]
    assert regression.expected([BUILT], [pair("Where is it?", "Rome")]) == due
    assert regression.expected([BUILT], [pair("who built it", "Ann")]) == due


def test_fact_is_outdated_when_the_new_dataset_answers_otherwise() -> None:
    assert regression.expected([BUILT], [pair("WHO built it?", "Bob")]) == []
    asked_otherwise = pair("Who made it?", "Bob", held_out=("By whom was it built?",))
    assert regression.expected([BUILT], [asked_otherwise]) == []


def test_fact_that_nobody_asked_for_is_due_when_it_is_still_there() -> None:
    filler = pair("How old is it?", "Ten years", score=datasets.UNASKED_SCORE)
    assert regression.expected([filler], [BUILT]) == []
    assert regression.expected([filler], [filler]) == [("How old is it?", "Ten years")]


def test_near_misses_are_not_due_when_a_version_is_followed() -> None:
    assert regression.expected([pair("Who?", "Ann", kind=datasets.Kind.CONTRAST)], []) == []


def test_row_counts_what_the_old_version_knew_when_the_new_one_is_asked() -> None:
    old = {"a?": "one", "b?": "two", "c?": "wrong"}
    new = {"a?": "It is one.", "b?": "nine", "c?": "three"}
    due = [("a?", "one"), ("b?", "two"), ("c?", "three")]

    def answers(known: dict[str, str]) -> regression.gate.Ask:
        def ask(asked: Sequence[str]) -> list[str]:
            return [known[question] for question in asked]

        return ask

    row = regression.row(answers(new), answers(old), due, 0.95)
    assert (row.name, row.right, row.asked, row.passed) == ("regression", 1, 2, False)
    assert row.wrong == ("b?",) and row.curable


def test_row_passes_when_nothing_is_due() -> None:
    row = regression.row(lambda asked: ["x"], lambda asked: ["x"], [], 0.95)
    assert row.passed and row.asked == 0
