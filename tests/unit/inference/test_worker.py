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


@pytest.fixture
async def worker():
    made = workers.Worker(2, lambda: None)
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
        worker.submit_last(lambda: order.append("last")),
        worker.submit_urgent(lambda: order.append("urgent")),
    ]
    held.go_on.set()
    await asyncio.gather(*map(asyncio.wrap_future, jobs))
    assert order == ["urgent", "request", "last"]


async def test_request_is_refused_when_the_queue_is_full(worker, held):
    kept = [worker.submit(lambda: None) for _ in range(2)]
    with pytest.raises(errors.OverloadedError, match=r"inference\.queue"):
        worker.submit(lambda: None)
    urgent = worker.submit_urgent(lambda: "in")
    last = worker.submit_last(lambda: "in, too")
    held.go_on.set()
    assert await asyncio.wrap_future(urgent) == "in"
    assert await asyncio.wrap_future(last) == "in, too"
    assert all(job.done() for job in kept)


async def test_place_is_free_again_when_a_caller_went_away(worker, held):
    gone, _ = worker.submit(lambda: None), worker.submit(lambda: None)
    gone.cancel()
    assert worker.waiting == 1
    later = worker.submit(lambda: "taken")
    held.go_on.set()
    assert await asyncio.wrap_future(later) == "taken"


async def test_running_job_lets_urgent_ones_in_when_it_asks(worker):
    order: list[str] = []

    def request() -> None:
        order.append("begin")
        worker.submit_urgent(lambda: order.append("urgent"))
        worker.run_urgent()
        order.append("end")

    await asyncio.wrap_future(worker.submit(request))
    assert order == ["begin", "urgent", "end"]


async def test_thread_lives_on_when_a_job_fails(worker):
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await asyncio.wrap_future(worker.submit(fail))
    assert await asyncio.wrap_future(worker.submit(lambda: 1)) == 1


async def test_waiting_requests_are_refused_when_the_worker_stops():
    worker, job = workers.Worker(2, lambda: None), _Held()
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
