"""DBOS Transact: the durable queue and the record of finished steps.

The one module that knows DBOS. Workflows are coroutines on the service's own event loop, where
their gRPC channels live. A workflow's id is its task's id, so that handing a task in twice starts
it once.

Deduplication is the ledger's: DBOS holds a deduplication id until it has noted a workflow's end,
which is a moment after the task has ended, and would refuse a new task in between.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import dbos

from services.factory import presence, tasks

WORKFLOW_VERSION = "3"
"""Only workflows of the same version are taken over after a restart."""
_APPLICATION, _QUEUE = "skillmesh-factory", "learning"
_POLL_S = 0.25
_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_RECOVERIES = 1000
"""A task survives this many kills; a factory that crashes at start must not lose its tasks."""


class Runtime:
    """DBOS for one process; there can be one only."""

    def __init__(self, database_url: str, concurrency: int, name: str = presence.ALONE) -> None:
        """Prepares; nothing is opened yet.

        Args:
            database_url: SQLAlchemy URL of the database that holds queue and records.
            concurrency: workflows at the same time, of all factories on the database.
            name: of this factory: what it has begun is begun again at its next start.
        """
        self._name = name
        self._url = database_url
        self._concurrency = concurrency
        self._launched = asyncio.Event()
        self._stopping = False
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._workflow: Callable[[str], Any] | None = None

    async def start(self, learn: Callable[[str], Awaitable[None]]) -> None:
        """Launches DBOS, which takes over the workflows that a killed process left.

        Args:
            learn: the workflow; takes a task's id.
        """
        logger = logging.getLogger("dbos")
        if not logger.handlers:
            # Else DBOS adds a handler of its own and its lines pass our format by.
            logger.addHandler(logging.NullHandler())
        dbos.DBOS(
            config={
                "name": _APPLICATION,
                "system_database_url": self._url,
                "application_version": WORKFLOW_VERSION,
                "executor_id": self._name,
                "serializer": dbos.DBOSPortableJSONSerializer(),
                "log_level": "ERROR",
            }
        )

        @dbos.DBOS.workflow(name="learn", max_recovery_attempts=_RECOVERIES)
        async def workflow(task_id: str) -> None:
            await self._run(learn, task_id)

        self._workflow = workflow
        # On this thread although it blocks for a moment: DBOS adopts the loop that runs where it
        # is launched, and would give the workflows a loop of its own otherwise.
        dbos.DBOS.launch()
        await dbos.DBOS.register_queue_async(
            _QUEUE,
            global_concurrency=self._concurrency,
            polling_interval_sec=_POLL_S,
            on_conflict="always_update",
        )
        self._launched.set()

    async def stop(self) -> None:
        """Stops the workflows where they are, to be taken over at the next start."""
        self._stopping = True
        await self.let_go()
        # Off the loop, which DBOS's threads may be waiting for; on a thread that is not DBOS's.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            await asyncio.get_running_loop().run_in_executor(
                thread, lambda: dbos.DBOS.destroy(destroy_registry=True)
            )

    async def let_go(self) -> None:
        """Stops what runs here, where it is."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def owners(self) -> set[str]:
        """The other factories that have begun what is under way."""
        await self._launched.wait()
        found = await dbos.DBOS.list_workflows_async(
            status="PENDING", app_version=WORKFLOW_VERSION, load_input=False, load_output=False
        )
        return {one.executor_id for one in found if one.executor_id} - {self._name}

    async def stop_cancelled(self) -> None:
        """Stops what runs here and was cancelled at another factory."""
        if self._running:
            found = await dbos.DBOS.list_workflows_async(
                workflow_ids=list(self._running),
                status="CANCELLED",
                load_input=False,
                load_output=False,
            )
            for one in found:
                if one.workflow_id in self._running:
                    self._running[one.workflow_id].cancel()

    async def take_over(self, names: Iterable[str]) -> None:
        """Puts what some factories have begun back into the queue; each workflow once."""
        await self._launched.wait()
        # DBOS does this by itself only for those of the same name, or with its hosted conductor.
        await asyncio.to_thread(dbos.DBOS._recover_pending_workflows, list(names))

    async def enqueue(self, task_id: str, priority: int, delay_s: float = 0.0) -> None:
        """Hands a task in; one that was handed in before is left as it is.

        Args:
            task_id: which.
            priority: 1 (low) to 5 (critical).
            delay_s: wait this long first, without keeping others from their turn.
        """
        await self._launched.wait()
        assert self._workflow is not None
        with (
            dbos.SetWorkflowID(task_id),
            dbos.SetEnqueueOptions(
                # DBOS takes the lowest number first.
                priority=tasks.HIGHEST_PRIORITY + tasks.LOWEST_PRIORITY - priority,
                delay_seconds=delay_s or None,
            ),
        ):
            await dbos.DBOS.enqueue_workflow_async(_QUEUE, self._workflow, task_id)

    async def cancel(self, task_id: str) -> None:
        """Takes a task out of the queue, or stops it where it is."""
        await self._launched.wait()
        await dbos.DBOS.cancel_workflow_async(task_id)
        running = self._running.get(task_id)
        if running is not None:
            running.cancel()

    async def ended(self, task_ids: Sequence[str]) -> set[str]:
        """Those of the tasks whose workflow is over, or of another version and left for good."""
        if not task_ids:
            return set()
        found = await dbos.DBOS.list_workflows_async(workflow_ids=list(task_ids))
        return {
            workflow.workflow_id
            for workflow in found
            if workflow.status in _ENDED or workflow.app_version not in (None, WORKFLOW_VERSION)
        }

    async def step(
        self, name: str, body: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Runs a step of the workflow around it, unless its result is recorded."""

        async def run() -> dict[str, Any]:
            return await body()

        return await dbos.DBOS.run_step_async({"name": name}, run)

    async def _run(self, learn: Callable[[str], Awaitable[None]], task_id: str) -> None:
        current = asyncio.current_task()
        if self._stopping or current is None:
            raise asyncio.CancelledError
        self._running[task_id] = current
        try:
            await learn(task_id)
        finally:
            self._running.pop(task_id, None)
