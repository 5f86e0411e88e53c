"""All wiring of the router's process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from services.router import (
    dissonance,
    embedding,
    metrics,
    practice,
    router,
    service,
    shipped,
    spool,
    subscriber,
    vector_store,
    words,
)
from shared import discovery
from shared import settings as config
from shared.cards import signature
from shared.models import embedder as embedders
from shared.pb import factory_pb2_grpc, router_pb2, router_pb2_grpc
from shared.rpc import client, watch
from shared.rpc import server as rpc_server
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics
from shared.telemetry import tracing

_REPORT_DEADLINE_S = 30.0
_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def running(
    settings: config.Settings,
    load_model: Callable[[], embedding.TextModel] = embedders.Embedder,
    find_stores: watch.Find | None = None,
    silence_s: float = watch.SILENCE_S,
) -> AsyncIterator[int]:
    """The router, from its start to its graceful stop.

    Args:
        settings: addresses, threshold, size of the event queue, state folder.
        load_model: makes the embedder.
        find_stores: looks for card stores; by default discovery.
        silence_s: how long the store may be silent before the line counts as dead.

    Yields:
        The port that it listens on.

    Raises:
        errors.ConfigError: the port is taken, or embedder or state folder are wrong.
    """
    protection = protections.Protection.configured(settings)
    async with contextlib.AsyncExitStack() as stack:
        embedder = embedding.Embedding(load_model)
        stack.push_async_callback(embedder.stop)
        await embedder.start()
        vectors = vector_store.VectorStore(
            settings.state_path("router", "vectors.sqlite"),
            embedder.vectors_id,
            embedder.embed,
            shipped=shipped.load(),
        )
        stack.push_async_callback(vectors.close)
        vocabulary = embedder.vocabulary()
        lora_router = router.LoRARouter(
            embed_query=embedder.query,
            embed=vectors.embed,
            weigher=words.Words(vocabulary),
            ground=await practice.prepare(vectors.embed, vocabulary),
            threshold=settings.router.dissonance_threshold,
        )
        stack.push_async_callback(lora_router.close)

        bus = await _event_bus(settings, protection, stack)
        follower = watch.StoreFollower(
            find_stores or (lambda: discovery.find_stores(settings)),
            silence_s,
            settings.discovery.list_every_s,
            protection,
        )
        trust = signature.Trust.configured(settings)
        cards = subscriber.CardSubscriber(lora_router, follower, trust)
        detector = dissonance.Detector(
            learns=settings.router.learn_from_questions,
            threshold=settings.router.dissonance_threshold,
            silent_tenants=settings.router.no_learning_tenants,
        )
        decisions = metrics.Decisions()
        servicer = service.RouterService(
            *(lora_router, embedder, embedders.EMBEDDER_ID, detector, bus, cards),
            protection.admitted,
            decisions.observe,
        )

        def add(grpc_server: grpc.aio.Server) -> str:
            router_pb2_grpc.add_RouterServicer_to_server(servicer, grpc_server)
            return router_pb2.DESCRIPTOR.services_by_name["Router"].full_name

        server = rpc_server.Server(
            [add], settings.router.address, protection, settings.cluster.drain_s
        )
        await server.start()
        stack.push_async_callback(server.stop)
        # Only whoever holds the port may touch the spool: a second router started by mistake would
        # otherwise take the events of the first.
        await bus.start()
        stack.push_async_callback(cards.stop)
        cards.start()
        own = (server.calls, decisions, metrics.reader(lora_router, bus, cards))
        stack.enter_context(shared_metrics.serving(settings, "router", *own))
        _log.info("router listens", port=server.port)
        yield server.port


async def serve(settings: config.Settings) -> None:
    """Runs the router until a signal."""
    async with running(settings):
        await rpc_server.until_signal()


async def _event_bus(
    settings: config.Settings,
    protection: protections.Protection,
    stack: contextlib.AsyncExitStack,
) -> dissonance.EventBus:
    channel = await stack.enter_async_context(
        client.channel(settings.factory.address, protection=protection)
    )
    factory = factory_pb2_grpc.FactoryStub(channel)

    async def deliver(event: spool.Dissonance) -> None:
        message = service.dissonance_message(event)
        with tracing.resumed(event.traceparent):
            await client.call(factory.ReportDissonance, message, _REPORT_DEADLINE_S)

    bus = dissonance.EventBus(
        deliver,
        spool.Spool(settings.state_path("router", "dissonance.jsonl")),
        settings.router.event_queue,
        answer_wait_s=settings.router.answer_wait_s,
    )
    stack.push_async_callback(bus.stop)
    return bus
