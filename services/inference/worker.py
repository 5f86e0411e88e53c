"""The one thread that touches the model, with a bounded queue before it.

Knows nothing about models: a job is a function. Urgent jobs (cards that come and go) go ahead of
waiting requests and are never refused. What goes on for long is done in steps between the jobs, so
that nobody waits for its end.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog

from shared import errors

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Steps(Protocol):
    """What the thread does while no job can run; only the thread asks and steps."""

    @property
    def busy(self) -> bool:
        """Whether there is a step to do."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether a job that adds to the steps may run now."""
        ...

    def step(self) -> None:
        """Does one."""
        ...

    def abandon(self, error: BaseException) -> None:
        """Gives up all that goes on in steps, after one failed; must not raise."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    work: Callable[[], Any]
    done: concurrent.futures.Future[Any]
    adds_steps: bool = False


class Worker:
    """Runs jobs one after the other in a thread of its own."""

    def __init__(self, capacity: int, prepare: Callable[[], None], steps: Steps) -> None:
        """Prepares; the thread begins with `start`.

        Args:
            capacity: requests that may wait; more are refused.
            prepare: called once in the thread, before the first job.
            steps: what is done between jobs.
        """
        self._capacity = capacity
        self._prepare = prepare
        self._steps = steps
        self._urgent: collections.deque[_Job] = collections.deque()
        self._requests: collections.deque[_Job] = collections.deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._owes_step = False
        """Whether a step is due before the next request: requests alone could fill all time."""
        # A daemon: a generation that hangs in native code must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Refuses what waits, lets the running job and all steps end, and ends the thread."""
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

    def submit(
        self, work: Callable[[], T], adds_steps: bool = False
    ) -> concurrent.futures.Future[T]:
        """Puts a request into the queue; what it returns or raises is the future's.

        Args:
            work: the job.
            adds_steps: it waits until there is room for more steps, and so does who comes after.

        Raises:
            errors.OverloadedError: the queue is full.
            errors.UnavailableError: the node is stopping.
        """
        with self._changed:
            self._make_room()
            return self._put(self._requests, work, adds_steps)

    def submit_urgent(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Puts a job ahead of all requests, however full the queue is."""
        with self._changed:
            return self._put(self._urgent, work)

    def _put(
        self, queue: collections.deque[_Job], work: Callable[[], T], adds_steps: bool = False
    ) -> concurrent.futures.Future[T]:
        if self._stopping:
            raise errors.UnavailableError("the node is stopping; ask again")
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        queue.append(_Job(work, done, adds_steps))
        self._changed.notify_all()
        return done

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

    def _next(self) -> Callable[[], None] | None:
        """What to do next; None when it is time to end."""
        with self._changed:
            while True:
                if self._urgent:
                    return functools.partial(_run, self._urgent.popleft())
                due = self._owes_step and self._steps.busy
                if self._requests and not due and self._may_run(self._requests[0]):
                    job = self._requests.popleft()
                    self._owes_step = not job.adds_steps
                    return functools.partial(_run, job)
                if self._steps.busy:
                    self._owes_step = False
                    return self._step
                if self._stopping:
                    return None
                self._changed.wait()

    def _may_run(self, job: _Job) -> bool:
        return not job.adds_steps or self._steps.has_room

    def _step(self) -> None:
        try:
            self._steps.step()
        except BaseException as error:
            # The thread outlives every step; whoever waits for these gets the reason.
            _log.exception("steps abandoned")
            self._steps.abandon(error)

    def _work(self) -> None:
        self._prepare()
        while (work := self._next()) is not None:
            work()


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
