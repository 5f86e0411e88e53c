"""Long work that callers attach to: one run a key, whoever asks again joins or starts it.

A run belongs to nobody: a caller that goes away does not end it, and finds it again. Knows nothing
about the work; the distiller and the trainer stream its progress.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Generic, Protocol, TypeVar

import structlog

from shared import errors

T = TypeVar("T")


class Report(Protocol):
    """Takes news of a run."""

    async def __call__(
        self, share: float, detail: str, figures: Mapping[str, float] | None = None
    ) -> None:
        """Tells how far it is.

        Args:
            share: that is done, 0 to 1.
            detail: what is being done, for people.
            figures: what else is measured, by name.
        """
        ...


_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is."""

    share: float
    """0 to 1."""
    detail: str
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What else is measured, by name."""


class Runs(Generic[T]):
    """All runs of one kind in this process."""

    def __init__(self) -> None:
        """Starts with none."""
        self._runs: dict[str, _Run[T]] = {}

    async def follow(
        self, key: str, work: Callable[[Report], Coroutine[None, None, T]]
    ) -> AsyncIterator[Progress | T]:
        """Progress of the key's run from now on, then its result.

        Args:
            key: names the run, usually a task id.
            work: makes the result; started where no run of that key is under way. It must
                remember finished work by itself, since a run is forgotten when it ends.

        Raises:
            errors.SkillmeshError: why the run failed.
        """
        run = self._runs.get(key) or self._start(key, work)
        async for progress in run.follow():
            yield progress
        yield run.result()

    async def cancel(self, key: str) -> None:
        """Ends a key's run, if one is under way."""
        run = self._runs.get(key)
        if run is not None:
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)

    async def close(self) -> None:
        """Ends all runs."""
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: str, work: Callable[[Report], Coroutine[None, None, T]]) -> _Run[T]:
        run = _Run(work)
        self._runs[key] = run

        def ended(task: asyncio.Task[T]) -> None:
            # Not kept: a failed run may be started again, a finished one is on disk.
            del self._runs[key]
            # Looked at here, since perhaps nobody follows any more.
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.info("run failed", run=key, reason=str(error))

        run.task.add_done_callback(ended)
        return run


class _Run(Generic[T]):
    """One run, and the news of it."""

    def __init__(self, work: Callable[[Report], Coroutine[None, None, T]]) -> None:
        self._latest = Progress(0.0, "starting")
        self._news = asyncio.Event()
        self.task = asyncio.create_task(work(self._report))
        self.task.add_done_callback(lambda _: self._wake())

    async def follow(self) -> AsyncIterator[Progress]:
        """The latest progress and what follows it, until the run ends; slow followers skip."""
        seen = None
        while not self.task.done():
            news = self._news
            if self._latest is seen:
                await news.wait()
            else:
                seen = self._latest
                yield seen

    def result(self) -> T:
        """The result of a run that ended.

        Raises:
            errors.UnavailableError: it was cancelled, or ended because the service stops.
            errors.SkillmeshError: why it failed.
        """
        if self.task.cancelled():
            raise errors.UnavailableError("the run was ended, as when the service stops; ask again")
        return self.task.result()

    async def _report(
        self, share: float, detail: str, figures: Mapping[str, float] | None = None
    ) -> None:
        self._latest = Progress(share, detail, figures or {})
        self._wake()

    def _wake(self) -> None:
        # A fresh event for each piece of news: one that is set and cleared would miss followers.
        news, self._news = self._news, asyncio.Event()
        news.set()
