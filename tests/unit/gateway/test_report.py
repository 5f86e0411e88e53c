"""The demo's figures."""

from __future__ import annotations

import io
import json
import pathlib

import pytest
import rich.console

from services.gateway import domain
from services.gateway.command_line import demo, exam, report
from shared import terminal


def answer(text: str, rewritten: str = "") -> domain.Answer:
    return domain.Answer(
        text=text,
        card="",
        confidence=0.5,
        dissonance=True,
        event_id="",
        rewritten_query=rewritten,
    )


def question(before: str, after: str, expected: str = "Ann Lee", read: str = "") -> exam.Question:
    return exam.Question("Who [b]?", expected, answer(before), answer(after, read))


def outcome(status: str = domain.COMPLETED, right: int = 2) -> exam.Outcome:
    asked = [question("I do not know.", "Ann Lee.")] * right
    asked += [question("No.", "No.")] * (2 - right)
    task = domain.Task(
        id="t1",
        trigger_query="Who?",
        other_queries=(),
        domain="people",
        priority=3,
        status=status,
        card="ann@1",
        error="broken",
        progress=1.0,
        detail="",
        stage_times=(domain.StageTime("train", 8.0), domain.StageTime("train", 2.5)),
        created_at_ms=0,
        updated_at_ms=0,
        retry_of="",
    )
    return exam.Outcome(
        document="people.md",
        asked=tuple(asked),
        unseen=(question("No.", "The Ann Lee", read="Who is [it]?"), question("No.", "Bob")),
        unrewritten=(question("No.", "Eve"), question("No.", "Bob")),
        known=(question("Paris.", "Paris.", "Paris"), question("Two.", "I do not know.", "Two")),
        tasks=(task,),
        cards=(exam.LearnedCard("ann@1", pathlib.Path("ann.lora.arrow"), 90_000, 8, 28),),
        swaps=(domain.Swap("ann@1", 12.0, 8.0),),
        learning_s=31.4,
    )


def test_counts_right_answers_when_summed_up() -> None:
    counts = report.summary(outcome())
    assert counts["asked_right_before"] == 0 and counts["asked_right_after"] == 2
    assert counts["unseen_right_after"] == 1 and counts["unseen_right_card_alone"] == 0
    assert counts["known_right_before"] == 2 and counts["known_right_after"] == 1
    assert counts["known_unchanged"] == 1


def test_adds_repeated_stages_and_swaps_when_printed_as_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.print_json(report.as_json(outcome(), seed=3))
    printed = json.loads(capsys.readouterr().out)
    assert printed["times_s"]["train"] == 10.5
    assert printed["times_s"]["swap"] == pytest.approx(0.02)
    assert printed["facts"][0]["ask"]["after"] == {
        "answer": "Ann Lee.",
        "right": True,
        "card": "",
        "confidence": 0.5,
        "rewritten_query": None,
    }
    assert printed["facts"][0]["unseen"]["after"]["rewritten_query"] == "Who is [it]?"
    assert printed["facts"][0]["unseen_card_alone"]["answer"] == "Eve"
    assert printed["cards"][0]["size_bytes"] == 90_000


def test_shows_expected_beside_given_when_printed_for_people() -> None:
    console = rich.console.Console(file=io.StringIO(), width=120)
    report.show(outcome(), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        "read as: Who is [it]?",
        "without rewriting: 0",
        "Who [b]?",
        "Ann Lee",
        "I do not know.",
        "10.5",
        "ann.lora.arrow",
        "90 kB",
        "2/2",
    ):
        assert part in printed


@pytest.mark.parametrize(
    ("seen", "told"),
    [(outcome(domain.FAILED), "t1 is FAILED: broken"), (outcome(right=0), "only 0 of 2")],
)
def test_fails_when_the_task_failed_or_too_little_was_learned(
    seen: exam.Outcome, told: str
) -> None:
    with pytest.raises(terminal.FailedError, match=told):
        demo._judge(seen)


def test_is_content_when_half_is_right() -> None:
    demo._judge(outcome(right=1))
