"""All the wiring of the distiller."""

from __future__ import annotations

import asyncio
import os
import time

import structlog

from services.distiller import (
    code_bases,
    code_lessons,
    correcting,
    delivery,
    distiller,
    embed_client,
    enlarging,
    journal,
    knowledge,
    metrics,
    rewording,
    service,
    spending,
)
from services.distiller.codebase import generator
from services.distiller.codebase.lessons import journal as lessons_journal
from services.distiller.providers import base, documents, registry
from services.distiller.quality import language
from shared import errors, repositories, retention
from shared import settings as config
from shared.flight import store
from shared.rpc import client, runs
from shared.rpc import server as rpc_server
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics

_log = structlog.get_logger(__name__)


async def serve(settings: config.Settings) -> None:
    """Runs the distiller until it is told to stop.

    Raises:
        errors.ConfigError: the knowledge folder, a key or the port is missing.
    """
    folder = knowledge.open_folder(settings)
    state = settings.state_path("distiller")
    protection = protections.Protection.configured(settings)
    router = client.channel(settings.router.address, protection=protection)
    embed = embed_client.RouterEmbedder(router).embed
    ledger = spending.Ledger(state / "spending.sqlite", settings.evolution, _unix_ms)
    teachers = metrics.Teachers()
    ledger.on_paid = teachers.paid
    provider = registry.get_cloud_provider(
        settings.evolution,
        lambda: documents.DocumentProvider(folder, embed),
        os.environ,
        ledger,
        on_failure=teachers.failed,
    )
    rewords = rewording.Rewording(embed, cache_dir=state / "vectors")
    kept = journal.Journal(state / "tasks")
    cloud = distiller.CloudDistiller(provider, kept, settings.distiller, rewords, embed)
    datasets = store.StoreConnection(settings, protection=protection)
    corrects = correcting.Corrector(
        cloud, provider, kept, settings.distiller, datasets.get, rewords, embed
    )
    enlarger = enlarging.Enlarger(corrects, provider, kept, settings.distiller, rewords)
    deliver = delivery.Delivery(enlarger, lambda data: datasets.put("dataset", data))
    answers = lessons_journal.Journal(state / "tasks")
    code = code_bases.CodeBases(
        code_bases.RepositoryFolder(repositories.folder(settings)),
        code_lessons.CodeLessons(
            generator.DatasetGenerator(settings.distiller.codebase, provider, answers)
        ).teach,
        lambda data: datasets.put("samples", data),
        state / "code_bases",
        answers.take_over,
    )
    active = runs.Runs[service.Delivered]()
    servicer = service.DistillerService(
        active, deliver.work, provider, knowledge.KnowledgeFolder(folder), ledger, code
    )
    server = rpc_server.Server([servicer.add_to], settings.distiller.address, protection)
    preparing = asyncio.create_task(_prepare(provider, rewords))
    cleaning = asyncio.create_task(
        retention.removing_old(
            [state / "tasks", state / "code_bases"],
            settings.cluster.task_days,
            kept=(journal.SKILLS,),
        )
    )
    figures = (
        server.calls,
        teachers,
        metrics.reader(provider, ledger, settings.evolution.budget),
    )
    try:
        await server.start()
        with shared_metrics.serving(settings, "distiller", *figures):
            await rpc_server.until_signal()
    finally:
        preparing.cancel()
        cleaning.cancel()
        # First the runs: those who follow them would keep the server from stopping at once.
        await active.close()
        await server.stop()
        await provider.aclose()
        await router.close(None)
        ledger.close()


async def _prepare(provider: base.CloudProvider, rewords: rewording.Rewording) -> None:
    """Before the first question is located or the first skill distilled: neither waits for this."""
    try:
        await asyncio.to_thread(language.prepare)
        await provider.prepare()
        await rewords.prepare()
    except errors.SkillmeshError as error:
        # Whoever needs it tries again, and says what is wrong to who waits for it.
        _log.warning("documents or question families are not embedded yet", reason=str(error))


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
