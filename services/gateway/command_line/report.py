"""What the demo found out, as tables or as JSON.

Computes nothing but counts; see `exam`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from services.gateway import domain
from services.gateway.command_line import exam
from shared import terminal

_STAGES = ("detect", "distil", "train", "prove", "publish", "confirm")


def show(outcome: exam.Outcome, console: rich.console.Console) -> None:
    """Prints everything for people."""
    console.print(
        f"\nQuestions about {terminal.escape(outcome.document)}, which the model has never seen",
        style="bold",
    )
    console.print(_facts(outcome))
    console.print("\nWhat it knew before", style="bold")
    console.print(_known(outcome.known))
    console.print("\nTimes", style="bold")
    console.print(_times(outcome))
    for card in outcome.cards:
        console.print(
            terminal.escape(
                f"card {card.path}: {terminal.size(card.size_bytes)}, rank {card.rank}, "
                f"{card.modules} modules"
            ),
            soft_wrap=True,
        )
    console.print()
    for name, line in _lines(summary(outcome)):
        console.print(f"  {name:<26}{line}", style="bold")


def as_json(outcome: exam.Outcome, seed: int | None) -> dict[str, Any]:
    """Everything for programs."""
    facts = [
        {
            "answer": asked.expected,
            "ask": _question(asked),
            "unseen": _question(unseen),
            "unseen_card_alone": _answer(alone.after, alone.right_after),
        }
        for asked, unseen, alone in zip(
            outcome.asked, outcome.unseen, outcome.unrewritten, strict=True
        )
    ]
    return {
        "document": outcome.document,
        "seed": seed,
        "facts": facts,
        "known": [{"answer": one.expected, "ask": _question(one)} for one in outcome.known],
        "tasks": list(outcome.tasks),
        "times_s": _stage_seconds(outcome),
        "cards": [
            {
                "card": card.reference,
                "file": str(card.path),
                "size_bytes": card.size_bytes,
                "rank": card.rank,
                "modules": card.modules,
            }
            for card in outcome.cards
        ],
        "summary": summary(outcome),
    }


def summary(outcome: exam.Outcome) -> dict[str, Any]:
    """The counts."""
    return {
        "facts": len(outcome.asked),
        "asked_right_before": sum(one.right_before for one in outcome.asked),
        "asked_right_after": sum(one.right_after for one in outcome.asked),
        "unseen_right_before": sum(one.right_before for one in outcome.unseen),
        "unseen_right_after": sum(one.right_after for one in outcome.unseen),
        "unseen_right_card_alone": sum(one.right_after for one in outcome.unrewritten),
        "known": len(outcome.known),
        "known_right_before": sum(one.right_before for one in outcome.known),
        "known_right_after": sum(one.right_after for one in outcome.known),
        "known_unchanged": sum(one.before.text == one.after.text for one in outcome.known),
        "learning_s": round(outcome.learning_s, 2),
        "card_bytes": sum(card.size_bytes for card in outcome.cards),
    }


def _lines(counts: dict[str, Any]) -> list[tuple[str, str]]:
    facts, known = counts["facts"], counts["known"]
    return [
        (
            "trained wording right",
            f"{counts['asked_right_after']}/{facts} (before: {counts['asked_right_before']})",
        ),
        (
            "unseen wording right",
            f"{counts['unseen_right_after']}/{facts} (before: {counts['unseen_right_before']}; "
            f"without rewriting: {counts['unseen_right_card_alone']})",
        ),
        (
            "known questions right",
            f"{counts['known_right_after']}/{known} (before: {counts['known_right_before']}; "
            f"{counts['known_unchanged']} answers unchanged)",
        ),
        ("from question to learned", f"{counts['learning_s']:.1f} s"),
    ]


def _facts(outcome: exam.Outcome) -> rich.table.Table:
    table = rich.table.Table("question", "expected", "before", "after", show_lines=True)
    for asked, unseen in zip(outcome.asked, outcome.unseen, strict=True):
        for label, one in (("", asked), ("unseen: ", unseen)):
            table.add_row(
                terminal.escape(label + one.text),
                terminal.escape(one.expected),
                _marked(one.before.text, one.right_before),
                _marked(one.after.text, one.right_after) + _rewriting(one.after),
            )
    return table


def _known(known: Sequence[exam.Question]) -> rich.table.Table:
    table = rich.table.Table("question", "expected", "before", "after")
    for one in known:
        table.add_row(
            terminal.escape(one.text),
            terminal.escape(one.expected),
            _marked(one.before.text, one.right_before),
            _marked(one.after.text, one.right_after),
        )
    return table


def _times(outcome: exam.Outcome) -> rich.table.Table:
    seconds = _stage_seconds(outcome)
    table = rich.table.Table("stage", "seconds")
    for stage, value in seconds.items():
        table.add_row(stage, f"{value:.3f}" if value < 1 else f"{value:.1f}")
    return table


def _stage_seconds(outcome: exam.Outcome) -> dict[str, float]:
    """Seconds of every stage, over all tasks; a stage that was repeated counts each time."""
    spent = dict.fromkeys((*_STAGES, "swap"), 0.0)
    for task in outcome.tasks:
        for time in task.stage_times:
            spent[time.stage] = spent.get(time.stage, 0.0) + time.seconds
    spent["swap"] = sum(swap.fetch_ms + swap.swap_ms for swap in outcome.swaps) / 1000
    return spent


def _marked(text: str, right: bool) -> str:
    mark = "[green]✔[/green]" if right else "[red]✘[/red]"
    return f"{mark} {terminal.escape(text)}"


def _rewriting(answer: domain.Answer) -> str:
    if not answer.rewritten_query:
        return ""
    return f"\n[dim]read as: {terminal.escape(answer.rewritten_query)}[/dim]"


def _question(one: exam.Question) -> dict[str, Any]:
    return {
        "question": one.text,
        "before": _answer(one.before, one.right_before),
        "after": _answer(one.after, one.right_after),
    }


def _answer(answer: domain.Answer, right: bool) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "right": right,
        "card": answer.card,
        "confidence": answer.confidence,
        "rewritten_query": answer.rewritten_query or None,
    }
