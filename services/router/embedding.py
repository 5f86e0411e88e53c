"""The embedder in one worker thread: serial, batched, what is short before what is long.

A question of a user, and a request for a few texts, waits for at most one small batch of somebody's
thousand texts. Knows nothing about cards or routing.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import structlog
import torch

from shared import errors

Vectors = npt.NDArray[np.float32]
_CACHED_QUERIES = 4096
_BATCH_TEXTS = 32
_FEW_TEXTS = 4
_log = structlog.get_logger(__name__)


class TextModel(Protocol):
    """What is asked of an embedder; `shared.models.embedder.Embedder` is one."""

    @property
    def vectors_id(self) -> str:
        """Tells its vectors from those of any other, weights included."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of shape (texts, dimension)."""

    def vocabulary(self) -> list[str]:
        """Its words, most frequent first."""


@dataclasses.dataclass(frozen=True)
class _Job:
    texts: tuple[str, ...]
    done: asyncio.Future[Vectors]


class Embedding:
    """Owns the embedder and its thread."""

    def __init__(self, load: Callable[[], TextModel]) -> None:
        """Prepares; nothing is loaded before `start`.

        Args:
            load: makes the model; called in the worker thread.
        """
        self._load = load
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._urgent: collections.deque[_Job] = collections.deque()
        self._bulk: collections.deque[_Job] = collections.deque()
        self._wake = asyncio.Event()
        self._cache: collections.OrderedDict[str, Vectors] = collections.OrderedDict()
        self._under_way: dict[str, asyncio.Future[Vectors]] = {}
        self._model: TextModel | None = None
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads the model.

        Raises:
            errors.ConfigError: the model is missing or not the official one.
        """
        loop = asyncio.get_running_loop()
        self._model = await loop.run_in_executor(self._thread, self._open)
        self._worker = asyncio.create_task(self._work(self._model))

    async def stop(self) -> None:
        """Refuses what still waits and ends the thread."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        for job in (*self._urgent, *self._bulk):
            if not job.done.done():
                job.done.set_exception(errors.UnavailableError("the router is stopping; ask again"))
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def vectors_id(self) -> str:
        """Tells the model's vectors from those of any other; empty before `start`."""
        return self._model.vectors_id if self._model is not None else ""

    def vocabulary(self) -> list[str]:
        """The model's words, most frequent first; empty before `start`."""
        return self._model.vocabulary() if self._model is not None else []

    async def query(self, text: str) -> Vectors:
        """The vector of one question, shape (dimension,); kept for when it is asked again."""
        kept = self._cache.get(text)
        if kept is not None:
            self._cache.move_to_end(text)
            return kept
        # Whoever asks what is being embedded already waits with the others.
        waiting = self._under_way.get(text)
        if waiting is None:
            waiting = self._under_way[text] = self._submit(self._urgent, (text,))
            waiting.add_done_callback(lambda _: self._under_way.pop(text, None))
        # Shielded: who goes away must not take the answer from the others.
        vector: Vectors = (await asyncio.shield(waiting))[0]
        # What is no number may be one the next time.
        if np.isfinite(vector).all():
            self._cache[text] = vector
            if len(self._cache) > _CACHED_QUERIES:
                self._cache.popitem(last=False)
        return vector

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, shape (texts, dimension); many wait behind the questions of users."""
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        if len(texts) <= _FEW_TEXTS:
            return await self._submit(self._urgent, tuple(texts))
        # Texts of similar length share a batch: padding is what costs time.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        jobs = [
            self._submit(self._bulk, tuple(texts[at] for at in order[first : first + _BATCH_TEXTS]))
            for first in range(0, len(order), _BATCH_TEXTS)
        ]
        sorted_N_D = np.concatenate(await asyncio.gather(*jobs))
        vectors_N_D = np.empty_like(sorted_N_D)
        vectors_N_D[order] = sorted_N_D
        return vectors_N_D

    def _open(self) -> TextModel:
        torch.set_num_threads(1)
        return self._load()

    def _submit(
        self, queue: collections.deque[_Job], texts: tuple[str, ...]
    ) -> asyncio.Future[Vectors]:
        done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        queue.append(_Job(texts, done))
        self._wake.set()
        return done

    async def _work(self, model: TextModel) -> None:
        while True:
            jobs = [job for job in self._next() if not job.done.done()]
            if not jobs:
                self._wake.clear()
                if not self._urgent and not self._bulk:
                    await self._wake.wait()
                continue
            try:
                await self._finish(model, jobs)
            except Exception as error:
                # The worker must outlive any one batch; its callers get the reason.
                _log.exception("embedding failed", texts=sum(len(job.texts) for job in jobs))
                if len(jobs) == 1:
                    _fail(jobs[0], error)
                    continue
                # One bad text must not cost the others their vectors.
                for job in jobs:
                    try:
                        await self._finish(model, [job])
                    except Exception as own_error:
                        _fail(job, own_error)

    async def _finish(self, model: TextModel, jobs: Sequence[_Job]) -> None:
        """Embeds the texts of some jobs in one batch."""
        texts = [text for job in jobs for text in job.texts]
        loop = asyncio.get_running_loop()
        vectors_N_D = await loop.run_in_executor(self._thread, model.embed, texts)
        for job in jobs:
            # Who goes away meanwhile has given up the answer.
            if not job.done.done():
                job.done.set_result(vectors_N_D[: len(job.texts)])
            vectors_N_D = vectors_N_D[len(job.texts) :]

    def _next(self) -> list[_Job]:
        """All that is urgent as far as it fits into a batch, else one batch of bulk."""
        jobs, texts = list[_Job](), 0
        while self._urgent and texts + len(self._urgent[0].texts) <= _BATCH_TEXTS:
            jobs.append(self._urgent.popleft())
            texts += len(jobs[-1].texts)
        if not jobs and self._bulk:
            jobs.append(self._bulk.popleft())
        return jobs


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(errors.InternalError(f"embedding failed: {error}"))
