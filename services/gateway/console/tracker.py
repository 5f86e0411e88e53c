"""A learning task as it moves: its stages, what it is doing, how it ended."""

from __future__ import annotations

from services.gateway import domain
from services.gateway.console import frame, parts, wording

_STAGES = ("PENDING", "DISTILLING", "TRAINING", "EVALUATING", "PUBLISHING", "COMPLETED")
_WHAT = {
    "PENDING": ("Queue", "waits for its turn, and for more questions about the same gap"),
    "DISTILLING": ("Distil", "a teacher gives questions and answers"),
    "TRAINING": ("Train", "a small adapter learns them"),
    "EVALUATING": ("Prove", "it must pass an exam first"),
    "PUBLISHING": ("Publish", "every node takes it in"),
    "COMPLETED": ("Learned", "the question is answered by the card"),
}


class Tracker:
    """Shows one task; stands where it is made."""

    def __init__(self) -> None:
        """Shows nothing yet."""
        with parts.block("div", "stack"):
            with parts.block("div", "row between tight"):
                self._detail = parts.Text("p", "", "muted")
                self._status = parts.chip("", "plain")
            self._steps = parts.block("ol", "steps", aria_label="Stages of the learning task")
            # Stages alone are read out; progress within one would never end.
            self._said = parts.Text("p", "", "unseen", role="status", aria_live="polite")
            self._end = parts.block("div", "stack")
        self._keyed = parts.Keyed[tuple[str, str, float]](self._steps, "li", _step)
        self._ended_as = ""
        self._furthest = 0

    def show(self, task: domain.Task) -> None:
        """Shows how it is now."""
        self._status.text = wording.status(task.status)
        self._status.classes(replace=f"chip {wording.tone(task.status)}")
        detail = task.detail or _WHAT.get(task.status, ("", ""))[1]
        self._detail.text = detail[:1].upper() + detail[1:]
        if task.status in _STAGES:
            self._furthest = _STAGES.index(task.status)
        self._keyed.show(
            {name: (name, *self._state(place, task)) for place, name in enumerate(_STAGES)}
        )
        self._said.text = f"Learning task: {wording.status(task.status)}"
        if task.ended:
            self._detail.text = ""
        ended_as = f"{task.status} {task.card} {task.error}"
        if task.ended and self._ended_as != ended_as:
            self._ended_as = ended_as
            self._end.clear()
            with self._end:
                _how_it_ended(task)

    def _state(self, place: int, task: domain.Task) -> tuple[str, float]:
        """Of a stage: done, now, failed or to come, and how far it is."""
        if task.status == domain.COMPLETED or place < self._furthest:
            return "done", 1.0
        if place > self._furthest:
            return "", 0.0
        if task.ended:
            return "failed", 1.0
        return "now", max(0.06, task.progress)


def _step(value: tuple[str, str, float]) -> None:
    name, state, filled = value
    with parts.block(
        "div", f"step {state}", **({"aria_current": "step"} if state == "now" else {})
    ):
        parts.block("span", "step-fill").style(f"width: {100 * filled:.0f}%")
        parts.Text("strong", _WHAT[name][0])
        if state in ("now", "failed"):
            share = f"{wording.share(filled)}" if state == "now" and filled > 0.06 else ""
            parts.Text("span", share if state == "now" else "stopped here")
        elif state == "done":
            parts.Text("span", "done", "unseen")


def _how_it_ended(task: domain.Task) -> None:
    if task.status == domain.COMPLETED:
        with parts.block("div", "notice good"):
            parts.Text("strong", "Learned.")
            with parts.block("span"):
                parts.Text("span", "The card ")
                name = wording.card_name(task.card)
                parts.link(wording.card(task.card), f"{frame.PREFIX}/cards/{name}")
                parts.Text("span", " passed its exam and answers now.")
        return
    failed = task.status == domain.FAILED
    with parts.block("div", f"notice {'bad' if failed else 'warn'}"):
        parts.Text("strong", "Nothing was learned." if failed else "It was cancelled.")
        parts.Text("span", task.error or "No reason was given.")
    if failed:
        parts.Text(
            "p",
            "Remove the reason, then retry the task: teach a document that says it "
            "(make teach doc=PATH), or configure another teacher.",
            "muted",
        )
