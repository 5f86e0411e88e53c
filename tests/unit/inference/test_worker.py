"""The order of jobs, the bound of the queue, and the end of the thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.inference import worker as workers
from shared import errors


class _Held:
    """A job that tells when it runs and waits until it may end."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> None:
        self.running.set()
        assert self.go_on.wait(30)


class _Steps:
    """Counts down; `has_room` while fewer than two are left."""

    def __init__(self) -> None:
        self.left = 0
        self.done = 0
        self.failures: list[BaseException] = []
        self.abandoned: list[BaseException] = []

    @property
    def busy(self) -> bool:
        return self.left > 0

    @property
    def has_room(self) -> bool:
        return self.left < 2

    def step(self) -> None:
        if self.failures:
            raise self.failures.pop()
        self.left -= 1
        self.done += 1

    def abandon(self, error: BaseException) -> None:
        self.left = 0
        self.abandoned.append(error)


@pytest.fixture
def steps():
    return _Steps()


@pytest.fixture
async def worker(steps):
    made = workers.Worker(2, lambda: None, steps)
    made.start()
    yield made
    await made.stop()


@pytest.fixture
def held(worker):
    job = _Held()
    worker.submit(job)
    assert job.running.wait(30)
    yield job
    job.go_on.set()


async def test_urgent_job_goes_first_when_requests_wait(worker, held):
    order: list[str] = []
    jobs = [
        worker.submit(lambda: order.append("request")),
        worker.submit(lambda: order.append("second")),
        worker.submit_urgent(lambda: order.append("urgent")),
    ]
    held.go_on.set()
    await asyncio.gather(*map(asyncio.wrap_future, jobs))
    assert order == ["urgent", "request", "second"]


async def test_request_is_refused_when_the_queue_is_full(worker, held):
    kept = [worker.submit(lambda: None) for _ in range(2)]
    with pytest.raises(errors.OverloadedError, match=r"inference\.queue"):
        worker.submit(lambda: None)
    urgent = worker.submit_urgent(lambda: "in")
    held.go_on.set()
    assert await asyncio.wrap_future(urgent) == "in"
    await asyncio.gather(*map(asyncio.wrap_future, kept))


async def test_place_is_free_again_when_a_caller_went_away(worker, held):
    gone, _ = worker.submit(lambda: None), worker.submit(lambda: None)
    gone.cancel()
    assert worker.waiting == 1
    later = worker.submit(lambda: "taken")
    held.go_on.set()
    assert await asyncio.wrap_future(later) == "taken"


async def test_steps_go_on_when_no_job_waits(worker, steps):
    def begin() -> None:
        steps.left = 5

    await asyncio.wrap_future(worker.submit(begin))
    while steps.left:
        await asyncio.sleep(0)
    assert steps.done == 5


async def test_jobs_that_add_steps_wait_for_room_and_keep_their_order(worker, held, steps):
    done: list[tuple[str, int]] = []

    def begin() -> None:
        steps.left = 4

    def join() -> None:
        done.append(("join", steps.left))
        steps.left += 2

    jobs = [
        worker.submit_urgent(begin),
        worker.submit(join, adds_steps=True),
        worker.submit(lambda: done.append(("encode", steps.left))),
    ]
    held.go_on.set()
    await asyncio.gather(*map(asyncio.wrap_future, jobs))
    # Three of the four steps first; what came after waits behind, but not for room.
    assert done == [("join", 1), ("encode", 3)]


async def test_urgent_job_runs_between_two_steps(worker, steps):
    seen: list[int] = []

    def begin() -> None:
        steps.left = 3
        worker.submit_urgent(lambda: seen.append(steps.left))

    await asyncio.wrap_future(worker.submit(begin))
    while steps.left:
        await asyncio.sleep(0)
    assert seen == [3]


async def test_steps_end_when_the_worker_stops():
    steps = _Steps()
    worker = workers.Worker(2, lambda: None, steps)
    worker.start()

    def begin() -> None:
        steps.left = 3

    await asyncio.wrap_future(worker.submit(begin))
    await worker.stop()
    assert steps.left == 0 and steps.done == 3


async def test_thread_lives_on_when_a_job_fails(worker):
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await asyncio.wrap_future(worker.submit(fail))
    assert await asyncio.wrap_future(worker.submit(lambda: 1)) == 1


async def test_waiting_requests_are_refused_when_the_worker_stops(steps):
    worker, job = workers.Worker(2, lambda: None, steps), _Held()
    worker.start()
    running = worker.submit(job)
    assert job.running.wait(30)
    waiting = worker.submit(lambda: None)
    stopping = asyncio.create_task(worker.stop())
    with pytest.raises(errors.UnavailableError, match="stopping"):
        await asyncio.wrap_future(waiting)
    job.go_on.set()
    await stopping
    assert running.done()
    with pytest.raises(errors.UnavailableError):
        worker.submit(lambda: None)


async def test_steps_are_abandoned_and_jobs_go_on_when_one_fails(worker, steps):
    failure = SystemExit("out of memory")
    steps.failures, steps.left = [failure], 3
    assert await asyncio.wrap_future(worker.submit(lambda: "done")) == "done"
    while not steps.abandoned:
        await asyncio.sleep(0)
    assert steps.abandoned == [failure]
    assert await asyncio.wrap_future(worker.submit(lambda: "again")) == "again"


async def test_a_step_runs_between_two_requests(worker, held, steps):
    steps.left = 3
    seen = [worker.submit(lambda: steps.done) for _ in range(2)]
    held.go_on.set()
    first, second = [await asyncio.wrap_future(job) for job in seen]
    assert second == first + 1
