"""All wiring of the hierarchy's process: both planes, the timer, the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable

import structlog
import torch

from services.hierarchy import (
    admission,
    coordinator,
    data_plane,
    members,
    metrics,
    opening,
    port,
    service,
    snapshot_files,
)
from shared import settings as config
from shared.flight import server as flight_server
from shared.hierarchy import wire
from shared.rpc import process
from shared.rpc import server as rpc_server
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics

_log = structlog.get_logger(__name__)
_MIB = 2**20
_WEIGHTS_SHARE = 1 / 16
"""Of the memory, for the weights of the shared layers: their history, the kept snapshots and what
a tick makes of them take several times as much."""
_FILES_KEPT = 4
"""Snapshots that can be fetched; a node that is slower begins again with the newest."""


@dataclasses.dataclass(frozen=True)
class Listening:
    """The ports of a hierarchy that runs."""

    port: int
    """Of the control plane."""
    flight_port: int
    metrics_port: int
    """0 where there are none."""


@contextlib.asynccontextmanager
async def running(
    settings: config.Settings, make: Callable[[wire.Frame], port.Layers]
) -> AsyncIterator[Listening]:
    """The service, from its start to its graceful stop.

    Args:
        settings: addresses, limits, state folder.
        make: makes the hierarchy of a frame, or opens the one that is kept.

    Yields:
        Its ports.

    Raises:
        errors.ConfigError: a port is taken, or what is kept does not fit the settings.
        errors.IntegrityError: what is kept is damaged.
    """
    section, protection = settings.hierarchy, protections.Protection.configured(settings)
    limits, folder = section.limits, settings.state_path("hierarchy")
    async with contextlib.AsyncExitStack() as stack:
        known = members.Members(
            folder,
            section.specs(),
            limits.agents,
            limits.circuits,
            _clock_ms,
            limits.memory_mib * _MIB * _WEIGHTS_SHARE,
            limits.agents_per_owner,
        )
        gate = admission.Admission(
            limits.submissions_per_tick,
            limits.submissions_per_minute,
            int(limits.waiting_mib * _MIB),
        )
        files = snapshot_files.SnapshotFiles(folder / "snapshots", _FILES_KEPT)
        coordinated = coordinator.Coordinator(known, gate, files, make, section.tick_s)
        stack.push_async_callback(coordinated.close)
        await coordinated.open()

        flight = data_plane.HierarchyFlightServer(
            section.flight_address, coordinated, int(limits.submission_mib * _MIB), protection
        )
        stack.push_async_callback(asyncio.to_thread, flight.stop)
        flight_address = f"{section.flight_address.rpartition(':')[0]}:{flight.port}"
        servicer = service.HierarchyService(
            coordinated, lambda: flight_address, protection.admitted
        )
        server = rpc_server.Server([servicer.add_to], section.address, protection)
        await server.start()
        stack.push_async_callback(server.stop)
        own = (server.calls, flight.transfers, metrics.HierarchyCollector(coordinated))
        metrics_port = stack.enter_context(shared_metrics.serving(settings, "hierarchy", *own))
        ticking = asyncio.create_task(coordinated.run())

        async def end() -> None:
            # Before the servers stop, or they would wait for watchers that never leave.
            coordinated.end_watches()
            await ticking

        stack.push_async_callback(end)
        listening = Listening(server.port, flight.port, metrics_port)
        _log.info("hierarchy listens", **dataclasses.asdict(listening), agents=len(known.agents))
        yield listening


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def serve(settings: config.Settings) -> None:
    """Runs the hierarchy until a signal."""
    torch.set_num_threads(1)
    process.limit_memory(settings.hierarchy.limits.memory_mib * _MIB)
    # Before anything of the folder is touched: it may be another process's.
    with contextlib.closing(opening.Opening(settings)) as opened:
        async with running(settings, opened):
            await rpc_server.until_signal()
            # What was acknowledged is on disk: nothing is lost by a hard exit.
            flight_server.exit_soon()
