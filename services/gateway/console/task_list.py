"""All learning tasks: the queue, what moves, what failed and why, what it cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import frame, live, parts, task_actions, wording
from shared import errors

_EVERY_S = 1.5
_MOST_SHOWN = 100
_FILTERS: dict[str, Callable[[domain.Task], bool]] = {
    "All": lambda task: True,
    "Moving": lambda task: not task.ended,
    "Learned": lambda task: task.status == domain.COMPLETED,
    "Failed": lambda task: task.status in (domain.FAILED, domain.CANCELLED),
}


@dataclasses.dataclass(frozen=True)
class _Told:
    tasks: tuple[domain.Task, ...]
    teachers: domain.Teachers | None
    """None where the distiller does not answer."""


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    frame.head("Tasks", "What is being learned, waits for its turn, or was learned already.")
    notice = live.Notice()
    with parts.block("div", "figures"):
        moving, learned = parts.Figure("Moving"), parts.Figure("Learned")
        failed, spent = parts.Figure("Failed"), parts.Figure("Teachers today")
    with parts.section("All tasks"):
        with parts.block("div", "filters", role="group", aria_label="Which tasks"):
            buttons = {
                name: parts.button(name, lambda name=name: choose(name)) for name in _FILTERS
            }
        table = _table(desk, notice)
        nothing = parts.block("div")
    told: list[_Told] = []
    chosen = ["All"]

    def choose(name: str) -> None:
        chosen[0] = name
        for one, button in buttons.items():
            button.props["aria-pressed"] = "true" if one == name else "false"
        show_rows()

    def show_rows() -> None:
        if not told:
            return
        all_tasks = told[-1].tasks
        found = [task for task in all_tasks if _FILTERS[chosen[0]](task)]
        table.show({task.id: task for task in found[:_MOST_SHOWN]})
        nothing.clear()
        with nothing:
            if not all_tasks:
                parts.empty(
                    "Nothing was ever learned here",
                    "A task begins when somebody asks what no card knows. You can also have a "
                    "document learned: make teach doc=PATH.",
                    f"{frame.PREFIX}/",
                    "Ask a question",
                )
            elif not found:
                parts.empty("No task like that", "Choose another filter to see the others.")
            elif len(found) > _MOST_SHOWN:
                parts.Text("p", f"The newest {_MOST_SHOWN} of {len(found):,}.", "muted")

    def show(now: _Told) -> None:
        told[:] = [now]
        by = {name: sum(map(keep, now.tasks)) for name, keep in _FILTERS.items()}
        waiting = sum(task.status == "PENDING" for task in now.tasks)
        moving.show(str(by["Moving"]), f"{waiting} of them in the queue")
        learned.show(str(by["Learned"]), "and answered since")
        failed.show(str(by["Failed"]), "or cancelled")
        if now.teachers is not None:
            _show_spent(spent, now.teachers)
        show_rows()

    async def fetch() -> _Told:
        tasks = await desk.peers.factory.tasks()
        try:
            teachers = await desk.peers.distiller.teachers()
        except errors.SkillmeshError:
            return _Told(tuple(tasks), None)
        # How long one is still left alone changes all the time, and is shown nowhere.
        chain = tuple(dataclasses.replace(one, open_for_s=0.0) for one in teachers.chain)
        return _Told(tuple(tasks), dataclasses.replace(teachers, chain=chain))

    choose("All")
    live.follow(desk, _EVERY_S, "factory", fetch, show, notice)


def _show_spent(figure: parts.Figure, teachers: domain.Teachers) -> None:
    today = teachers.today
    away = [one.name for one in teachers.chain if one.circuit != "closed"]
    if away:
        figure.show(f"${today.dollars:.2f}", f"not asked just now: {', '.join(away)}", "warn")
    else:
        calls, tokens = wording.counted(today.calls, "call"), today.tokens_in + today.tokens_out
        told = f"{calls}, {tokens:,} tokens" if today.calls else "nothing was asked"
        figure.show(f"${today.dollars:.2f}", told)


def _table(desk: desks.Desk, notice: live.Notice) -> parts.Table[domain.Task]:
    def row(task: domain.Task) -> None:
        with table.cell(classes="lead"):
            question = task.trigger_query or task.repository
            parts.link(question, f"{frame.PREFIX}/tasks/{task.id}", "link clip")
            more = len(task.other_queries)
            about = task.error or task.detail or task.domain
            if more:
                about = f"and {wording.counted(more, 'more question')} · {about}" if about else ""
            parts.Text("span", about, "sub clip")
        with table.cell():
            parts.chip(wording.status(task.status), wording.tone(task.status))
            if not task.ended and task.progress > 0:
                parts.Text("span", wording.share(task.progress), "sub")
        with table.cell(classes="" if task.card else "none"):
            if task.card:
                name = wording.card_name(task.card)
                parts.link(name, f"{frame.PREFIX}/cards/{name}")
        cost = f"${task.spent.dollars:.4f}" if task.spent.dollars else ""
        calls = wording.counted(task.spent.calls, "call") if task.spent.calls else ""
        with table.cell(classes="" if task.spent.calls else "none"):
            parts.Text("span", cost or calls or "–")
            if cost:
                parts.Text("span", calls, "sub")
        with table.cell():
            parts.moment(task.created_at_ms)
            took_s = sum(one.seconds for one in task.stage_times)
            # Of one that moves only the stages behind it are known.
            if took_s and task.ended:
                parts.Text("span", f"took {wording.duration(took_s)}", "sub")
        with table.cell(classes="actions"), parts.block("div", "row"):
            task_actions.buttons(desk, task, notice, small=True)

    table = parts.Table[domain.Task](
        "Learning tasks, the newest first",
        (
            parts.Column("Question"),
            parts.Column("Status", "nowrap"),
            parts.Column("Card"),
            parts.Column("Cost", "number"),
            parts.Column("Started", "number"),
            parts.Column("Actions", "actions"),
        ),
        row,
    )
    return table
