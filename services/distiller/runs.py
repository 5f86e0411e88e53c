"""Distillations in progress: whoever asks for a task attaches to its run or starts it.

A run belongs to nobody: a caller that goes away does not end it, and finds it again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Protocol

import structlog

from services.distiller import distillation
from shared import errors
from shared.flight import datasets

_log = structlog.get_logger(__name__)
_UPLOADING = 0.97


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is."""

    share: float
    """0 to 1."""
    detail: str


@dataclasses.dataclass(frozen=True)
class Delivered:
    """A distillation whose dataset lies in the card store."""

    result: distillation.Distillation
    digest: str
    size_bytes: int


class Distils(Protocol):
    """Makes distillations, see `distiller.CloudDistiller`."""

    async def distil(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """Makes the facts of one skill."""
        ...


class Runs:
    """All runs of this process, by task id."""

    def __init__(self, distiller: Distils, upload: Callable[[bytes], Awaitable[str]]) -> None:
        """Takes whoever makes distillations and whoever stores datasets.

        Args:
            distiller: is asked once for each run; remembers finished tasks by itself.
            upload: puts a dataset's bytes into the card store and returns their digest.
        """
        self._distiller = distiller
        self._upload = upload
        self._runs: dict[str, _Run] = {}

    async def follow(
        self, request: distillation.DistilRequest
    ) -> AsyncIterator[Progress | Delivered]:
        """Progress of the task's run from now on, then its result.

        Raises:
            errors.SkillmeshError: why the run failed.
        """
        run = self._runs.get(request.task_id) or self._start(request)
        async for progress in run.follow():
            yield progress
        yield run.result()

    async def close(self) -> None:
        """Ends all runs; what teachers answered so far is kept by the distiller."""
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, request: distillation.DistilRequest) -> _Run:
        run = _Run(lambda report: self._work(request, report))
        self._runs[request.task_id] = run

        def ended(task: asyncio.Task[Delivered]) -> None:
            # Not kept: a failed run may be started again, a finished one is on disk.
            del self._runs[request.task_id]
            # Looked at here, since perhaps nobody follows any more.
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.info("distillation failed", task_id=request.task_id, reason=str(error))

        run.task.add_done_callback(ended)
        return run

    async def _work(
        self, request: distillation.DistilRequest, report: distillation.ProgressCallback
    ) -> Delivered:
        result = await self._distiller.distil(request, report)
        await report(_UPLOADING, "uploading the dataset")
        data = datasets.to_bytes(result.pairs)
        return Delivered(result, await self._upload(data), len(data))


class _Run:
    """One run, and the news of it."""

    def __init__(
        self, work: Callable[[distillation.ProgressCallback], Coroutine[None, None, Delivered]]
    ) -> None:
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

    def result(self) -> Delivered:
        """The result of a run that ended.

        Raises:
            errors.UnavailableError: it was ended because the service stops.
            errors.SkillmeshError: why it failed.
        """
        if self.task.cancelled():
            raise errors.UnavailableError("the distiller is stopping; ask again")
        return self.task.result()

    async def _report(self, share: float, detail: str) -> None:
        self._latest = Progress(share, detail)
        self._wake()

    def _wake(self) -> None:
        # A fresh event for each piece of news: one that is set and cleared would miss followers.
        news, self._news = self._news, asyncio.Event()
        news.set()
