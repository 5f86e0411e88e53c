"""All the wiring of the trainer."""

from __future__ import annotations

import asyncio
import os
import time

import structlog
import torch

from services.trainer import metrics, router_client, service, trainer, workshop
from services.trainer.specialist import manager
from shared import retention
from shared import settings as config
from shared.cards import signature
from shared.flight import store
from shared.models import base as bases
from shared.pb import router_pb2_grpc
from shared.rpc import client
from shared.rpc import server as rpc_server
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics

_log = structlog.get_logger(__name__)
_NICENESS = 5


async def serve(settings: config.Settings) -> None:
    """Runs the trainer until it is told to stop.

    Raises:
        errors.ConfigError: the port is taken, the signing key can't be used, or the base model has
            no chat template.
        errors.NotFoundError: there is no such base model.
    """
    # Whoever asks a question goes before whoever trains.
    os.nice(_NICENESS)
    torch.set_num_threads(settings.trainer.threads)
    protection = protections.Protection.configured(settings)
    signer = signature.Signer.load_or_make(settings.signing_key_path())
    # So that a new cluster trusts its own trainer without any set-up.
    signer.publish(settings.keyring_path())
    base = await asyncio.to_thread(
        bases.load,
        settings.model.base,
        settings.model.revision,
        settings.model.dtype,
        settings.trainer.quantization,
        settings.trainer.device,
    )
    state = settings.state_path("trainer")
    lora_trainer = trainer.LoRATrainer(base, settings.model.recipe(), settings.trainer, state)
    router = client.channel(settings.router.address, protection=protection)
    work = metrics.Work()
    shop = workshop.Workshop(
        lora_trainer,
        store.StoreConnection(settings, protection=protection),
        state / "tasks",
        time.monotonic,
        signer,
        router_client.RouterClient(router_pb2_grpc.RouterStub(router)),
        settings.trainer,
        settings.inference.query_rewriting.get(settings.model.base),
        manager.TrainingManager(base, settings.model.recipe(), settings.trainer, state),
        work,
    )
    servicer = service.TrainerService(shop, settings.trainer.seed)
    server = rpc_server.Server([servicer.add_to], settings.trainer.address, protection)
    cleaning = asyncio.create_task(
        retention.removing_old([state / "tasks"], settings.cluster.task_days)
    )
    try:
        await server.start()
        _log.info("trainer listens", port=server.port, base=base.id, signer=signer.key_id)
        with shared_metrics.serving(settings, "trainer", server.calls, work):
            await rpc_server.until_signal()
    finally:
        cleaning.cancel()
        # First the runs: those who follow them would keep the server from stopping at once.
        await servicer.close()
        await shop.close()
        await server.stop()
        await router.close(None)
