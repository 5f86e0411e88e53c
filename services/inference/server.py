"""All wiring of the inference node's process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from services.inference import metered, metrics, service
from services.inference.agents import attached
from services.inference.agents import service as agents_service
from shared import discovery, multicast
from shared import settings as config
from shared.models import base
from shared.pb import agents_pb2, agents_pb2_grpc, inference_pb2, inference_pb2_grpc
from shared.rpc import server as rpc_server
from shared.rpc import watch
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def running(
    settings: config.Settings,
    load_base: Callable[[config.Settings], base.BaseModel] = lambda settings: base.load(
        settings.model.base,
        settings.model.revision,
        settings.model.dtype,
        settings.inference.quantization,
        settings.inference.device,
    ),
    find_stores: watch.Find | None = None,
    silence_s: float = watch.SILENCE_S,
) -> AsyncIterator[int]:
    """The node, from its start to its graceful stop.

    Args:
        settings: base model, addresses, threads, length of the queue, state folder.
        load_base: loads the base model; called in a thread.
        find_stores: looks for card stores; by default discovery.
        silence_s: how long the store may be silent before the line counts as dead.

    Yields:
        The port that it listens on.

    Raises:
        errors.ConfigError: the port is taken, or the base model has no chat template.
        errors.NotFoundError: the base model can't be loaded.
    """
    protection = protections.Protection.configured(settings)
    async with contextlib.AsyncExitStack() as stack:
        model = await asyncio.to_thread(load_base, settings)
        answers = metrics.Answers()
        arrow_engine = metered.MeteredEngine(model, settings.inference, answers.observe)
        arrow_engine.start()
        stack.push_async_callback(arrow_engine.stop)

        own = None
        if settings.hierarchy.enabled:
            # Before any card is in the model: the layers are known by their bare paths.
            node = f"{socket.gethostname()}-{settings.inference.address}"
            own = await stack.enter_async_context(
                attached.attached(arrow_engine, model, settings, node)
            )
        evolution = await arrow_engine.enable_evolution(settings, find_stores, silence_s, own)
        servicer = service.InferenceService(
            evolution.node_id,
            arrow_engine,
            evolution.answers,
            evolution.completions,
            evolution.chosen,
            evolution.cards,
            evolution.semantic,
            protection.admitted,
        )

        def add(grpc_server: grpc.aio.Server) -> str:
            inference_pb2_grpc.add_InferenceServicer_to_server(servicer, grpc_server)
            return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

        def add_agents(grpc_server: grpc.aio.Server) -> str:
            assert own is not None
            agents_pb2_grpc.add_AgentsServicer_to_server(
                agents_service.AgentsService(own), grpc_server
            )
            return agents_pb2.DESCRIPTOR.services_by_name["Agents"].full_name

        services = [add] if own is None else [add, add_agents]
        server = rpc_server.Server(
            services, settings.inference.address, protection, settings.cluster.drain_s
        )
        await server.start()
        stack.push_async_callback(server.stop)
        evolution.cards.swapped.on_swap = answers.swapped
        figures = (
            server.calls,
            answers,
            metrics.reader(arrow_engine, evolution, settings.inference),
        )
        stack.enter_context(shared_metrics.serving(settings, "inference", *figures))
        evolution.reporter.answers_at(advertised(settings.inference, server.port))
        _log.info("inference node listens", port=server.port, base=model.id)
        yield server.port


def advertised(
    settings: config.Inference,
    port: int,
    own: Callable[[], frozenset[multicast.Address]] = multicast.addresses,
) -> str:
    """`host:port` where others reach a node.

    Args:
        settings: where it listens, and what it is to say.
        port: that it got.
        own: tells this machine's addresses, for a node that listens on all of them.
    """
    host = settings.address.rpartition(":")[0]
    return settings.advertise or f"{discovery.outer_hosts(host, own())[0]}:{port}"


async def serve(settings: config.Settings) -> None:
    """Runs the node until a signal."""
    async with running(settings):
        await rpc_server.until_signal()
