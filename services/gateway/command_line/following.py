"""Live progress of learning tasks and of a starting cluster, on stderr.

A terminal gets bars; a pipe or a log gets a line whenever something new begins, and now and then
how far it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import rich.console
import rich.progress
import rich.table

from services.gateway import domain
from services.gateway.calls import peers
from shared import terminal

_STAGES = ("PENDING", "DISTILLING", "TRAINING", "EVALUATING", "PUBLISHING", "COMPLETED")
_LONGEST_DETAIL = 60
_SAID_EVERY_S = 15.0
"""Where there are no bars."""


class Bars:
    """Bars by name; a context manager."""

    def __init__(
        self,
        console: rich.console.Console = terminal.NOTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes where to draw, and seconds, monotonic."""
        self._console, self._clock = console, clock
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            # It gives way where the screen is narrow; the bar and the time never do.
            rich.progress.TextColumn(
                "{task.fields[detail]}",
                table_column=rich.table.Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, rich.progress.TaskID] = {}
        self._said: dict[str, tuple[str, float]] = {}
        """The stage that a log was told last, and when."""

    def __enter__(self) -> Bars:
        """Starts drawing."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the last state on the screen."""
        self._progress.stop()

    def show(self, name: str, share: float, stage: str, detail: str = "") -> None:
        """Moves one bar.

        Args:
            name: which.
            share: 0 to 1.
            stage: what is being done.
            detail: more about it.
        """
        if not self._console.is_terminal:
            self._say(name, share, stage, detail)
            return
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(terminal.escape(name), total=1.0, detail="")
        text = terminal.escape(" · ".join(filter(None, (stage, detail[:_LONGEST_DETAIL]))))
        self._progress.update(self._bars[name], completed=share, detail=text)

    def _say(self, name: str, share: float, stage: str, detail: str) -> None:
        """A line for a log: what begins, or how far it is."""
        last, said_s = self._said.get(name, ("", 0.0))
        now_s = self._clock()
        if stage == last and now_s - said_s < _SAID_EVERY_S:
            return
        self._said[name] = stage, now_s
        far = (f"{100 * share:.0f} %", detail) if stage == last else ()
        told = ", ".join(filter(None, (stage, *far)))
        self._console.print(f"{name}: {told}", markup=False, soft_wrap=True)


async def until_learned(cluster: peers.Peers, task_ids: Sequence[str]) -> list[domain.Task]:
    """Follows tasks to their ends, each with a bar of its own."""
    with Bars() as bars:

        def show(task: domain.Task) -> None:
            bars.show(f"task {task.id}", _share(task), task.status.lower(), task.detail)

        ended = [cluster.factory.until_ended(task_id, show) for task_id in task_ids]
        return list(await asyncio.gather(*ended))


def _share(task: domain.Task) -> float:
    """How far a task is over all its stages, each counted alike."""
    if task.status not in _STAGES:
        return 1.0
    return min(1.0, (_STAGES.index(task.status) + task.progress) / (len(_STAGES) - 1))
