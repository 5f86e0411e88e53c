"""The one thread that touches the model, with a bounded queue before it.

Knows nothing about models: a job is a function. Urgent jobs (cards that come) go ahead of waiting
requests and are never refused; a running job may let them in where that is safe, see `run_urgent`.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from shared import errors

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    work: Callable[[], Any]
    done: concurrent.futures.Future[Any]


class Worker:
    """Runs jobs one after the other in a thread of its own."""

    def __init__(self, capacity: int, prepare: Callable[[], None]) -> None:
        """Prepares; the thread begins with `start`.

        Args:
            capacity: requests that may wait; more are refused.
            prepare: called once in the thread, before the first job.
        """
        self._capacity = capacity
        self._prepare = prepare
        self._urgent: collections.deque[_Job] = collections.deque()
        self._requests: collections.deque[_Job] = collections.deque()
        self._changed = threading.Condition()
        self._stopping = False
        # A daemon: a generation that hangs in native code must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Refuses what waits, lets the running job end, and ends the thread."""
        with self._changed:
            self._stopping = True
            waiting = [*self._urgent, *self._requests]
            self._urgent.clear()
            self._requests.clear()
            self._changed.notify_all()
        for job in waiting:
            if job.done.set_running_or_notify_cancel():
                job.done.set_exception(errors.UnavailableError("the node is stopping; ask again"))
        await asyncio.to_thread(self._thread.join)

    @property
    def waiting(self) -> int:
        """Requests that wait for the thread; the running one does not count."""
        with self._changed:
            return sum(not job.done.cancelled() for job in self._requests)

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Puts a request into the queue; what it returns or raises is the future's.

        Raises:
            errors.OverloadedError: the queue is full.
            errors.UnavailableError: the node is stopping.
        """
        with self._changed:
            self._make_room()
            return self._put(self._requests, work)

    def submit_urgent(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Puts a job ahead of all requests, however full the queue is."""
        with self._changed:
            return self._put(self._urgent, work)

    def submit_last(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Puts a job behind every request that waits now, however full the queue is."""
        with self._changed:
            return self._put(self._requests, work)

    def _put(
        self, queue: collections.deque[_Job], work: Callable[[], T]
    ) -> concurrent.futures.Future[T]:
        if self._stopping:
            raise errors.UnavailableError("the node is stopping; ask again")
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        queue.append(_Job(work, done))
        self._changed.notify_all()
        return done

    def run_urgent(self) -> None:
        """Runs the urgent jobs that wait; to be called by a running job, in the thread."""
        while (job := self._take(self._urgent)) is not None:
            _run(job)

    def _make_room(self) -> None:
        if len(self._requests) < self._capacity:
            return
        # Callers that went away leave their place to others.
        live = [job for job in self._requests if not job.done.cancelled()]
        self._requests = collections.deque(live)
        if len(live) >= self._capacity:
            raise errors.OverloadedError(
                f"{len(live)} requests wait for this node, as many as inference.queue allows; "
                "ask again later or ask another node"
            )

    def _take(self, queue: collections.deque[_Job]) -> _Job | None:
        with self._changed:
            return queue.popleft() if queue else None

    def _next(self) -> _Job | None:
        """The next job; None when it is time to end."""
        with self._changed:
            while not self._urgent and not self._requests:
                if self._stopping:
                    return None
                self._changed.wait()
            return self._urgent.popleft() if self._urgent else self._requests.popleft()

    def _work(self) -> None:
        self._prepare()
        while (job := self._next()) is not None:
            _run(job)


def _run(job: _Job) -> None:
    if not job.done.set_running_or_notify_cancel():
        return
    try:
        result = job.work()
    except BaseException as error:
        # The thread outlives every job; whoever waits for this one gets the reason.
        job.done.set_exception(error)
    else:
        job.done.set_result(result)
