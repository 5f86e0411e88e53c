"""All wiring of the control plane's process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import grpc
import structlog
import zeroconf

from services.card_store import (
    blobs,
    maintenance,
    maintenance_service,
    metrics,
    mirror,
    peers,
    processes,
    residency,
    revisions,
    service,
    store,
    trust,
)
from services.card_store.catalogue import catalogue, schema
from shared import discovery
from shared import settings as config
from shared.cards import signature
from shared.pb import cards_pb2, cards_pb2_grpc, maintenance_pb2, maintenance_pb2_grpc
from shared.rpc import server as rpc_server
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics

_log = structlog.get_logger(__name__)
_API_VERSION = "v1"
"""Of the protobuf package; announced to those who look for stores."""


@contextlib.asynccontextmanager
async def running(settings: config.Settings) -> AsyncIterator[int]:
    """The control plane, from its start to its graceful stop.

    Yields:
        The port that it listens on.

    Raises:
        errors.ConfigError: the port is taken, or folder or database are wrong.
    """
    protection = protections.Protection.configured(settings)
    async with contextlib.AsyncExitStack() as stack:
        files = processes.blob_store(settings)
        cards = catalogue.Catalogue(schema.open_database(processes.catalogue_url(settings)))
        stack.callback(cards.close)
        await asyncio.to_thread(cards.migrate)
        feed = revisions.RevisionFeed(cards.changes_after)
        card_store = store.CardStore(
            files,
            cards,
            feed,
            clock_ms=_clock_ms,
            flight_address=lambda: processes.flight_address(settings),
            verify=trust.Trust(signature.Trust.configured(settings), cards.retirement).verify,
        )
        stack.push_async_callback(asyncio.to_thread, card_store.close)
        store_id = await asyncio.to_thread(cards.store_id)
        followed = _peers(settings, store_id, card_store, files, cards, protection)
        nodes = residency.Residency(_clock_ms)
        servicer = service.CardStoreService(card_store, nodes, protection.admitted, followed)

        upkeep = maintenance.Maintenance(
            card_store, files, cards, settings.card_store, clock_ms=_clock_ms
        )
        upkeep_servicer = maintenance_service.MaintenanceService(
            upkeep, card_store, protection.admitted
        )

        def add(grpc_server: grpc.aio.Server) -> str:
            cards_pb2_grpc.add_CardStoreServicer_to_server(servicer, grpc_server)
            return cards_pb2.DESCRIPTOR.services_by_name["CardStore"].full_name

        def add_upkeep(grpc_server: grpc.aio.Server) -> str:
            maintenance_pb2_grpc.add_StoreMaintenanceServicer_to_server(
                upkeep_servicer, grpc_server
            )
            return maintenance_pb2.DESCRIPTOR.services_by_name["StoreMaintenance"].full_name

        server = rpc_server.Server([add, add_upkeep], settings.card_store.address, protection)
        await server.start()
        stack.push_async_callback(server.stop)
        # Before the server stops, or it would wait for watchers that never leave.
        stack.callback(feed.close)
        if followed is not None:
            stack.push_async_callback(followed.stop)
            followed.start()
        stack.callback(asyncio.create_task(upkeep.run()).cancel)
        if cards.may_be_shared:
            stack.callback(asyncio.create_task(feed.follow(cards.head)).cancel)
        figures = metrics.followers(feed, nodes, cards.head, followed)
        own = (server.calls, metrics.totals(cards), figures)
        stack.enter_context(shared_metrics.serving(settings, "card_store", *own))
        await _announce(settings, store_id, server.port, stack)
        _log.info("control plane listens", port=server.port, store=store_id)
        yield server.port


def _peers(
    settings: config.Settings,
    store_id: str,
    card_store: store.CardStore,
    files: blobs.BlobStore,
    cards: catalogue.Catalogue,
    protection: protections.Protection,
) -> peers.Peers | None:
    federation = settings.federation
    if not federation.enabled:
        return None
    bandwidth = mirror.Bandwidth(federation.bandwidth_mib_s * 2**20)
    mirroring = mirror.Mirror(
        card_store,
        files,
        cards.copies,
        store_id,
        federation.mirror,
        bandwidth,
        settings.card_store.largest_upload_bytes,
        protection,
    )
    return peers.Peers(settings, store_id, cards.copies, mirroring, protection)


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def _announce(
    settings: config.Settings, store_id: str, port: int, stack: contextlib.AsyncExitStack
) -> None:
    flight_port = processes.flight_address(settings).rpartition(":")[2]
    announcer = discovery.Announcer(
        settings, store_id, port, _API_VERSION, flight_port=int(flight_port or 0)
    )
    try:
        await announcer.start()
    except (OSError, zeroconf.Error) as error:
        # Discovery is a convenience: those with a static list of stores still find this one.
        _log.warning("not announced by zeroconf", reason=str(error))
        return
    stack.push_async_callback(announcer.stop)


async def serve(settings: config.Settings) -> None:
    """Runs the control plane until a signal."""
    processes.limit_memory(settings)
    async with running(settings):
        await rpc_server.until_signal()
