"""All the wiring of the factory: ledger, DBOS, the other services, gRPC."""

from __future__ import annotations

import asyncio

from services.factory import (
    board,
    clients,
    durable,
    feedback_desk,
    ledger,
    metrics,
    nightly,
    presence,
    queue,
    recheck,
    relearning,
    service,
    stages,
    succession,
    workflow,
)
from shared import settings as config
from shared.rpc import server as rpc
from shared.security import protection as protections
from shared.telemetry import metrics as shared_metrics


async def serve(settings: config.Settings) -> None:
    """Runs the factory until a signal.

    Raises:
        errors.ConfigError: the port is taken.
    """
    url = database_url(settings)
    book, learning = ledger.Ledger(url), metrics.Learning()
    kept = board.TaskBoard(book)
    protection = protections.Protection.configured(settings)
    connections = clients.Connections(settings, protection)
    here = presence.of(url)
    runtime = durable.Runtime(url, settings.factory.concurrency, here.name)
    others = succession.Succession(here, runtime)
    work = stages.Stages(
        kept,
        connections.partners,
        settings.factory.step_timeout_s,
        gather_s=settings.factory.gather_s,
    )
    distiller = workflow.SkillDistiller(work, runtime.step, learning)
    factory = queue.SkillFactory(
        kept,
        runtime,
        connections.partners.distiller,
        settings.factory.gather_s,
        settings.factory,
        connections.embed,
    )
    shift = nightly.NightShift(
        kept,
        factory.admit,
        settings.factory.nightly,
        nightly.rotation(settings),
        connections.embed,
        relearning.Relearning(kept, connections.partners.distiller).run,
    )
    checks = recheck.Rechecker(kept, connections.partners, settings.factory.recheck)
    desk = feedback_desk.FeedbackDesk(
        kept,
        factory,
        connections.partners.store,
        settings.factory.budget.tenant_feedback_per_hour,
        settings.router.no_learning_tenants,
    )
    servicer = service.FactoryService(factory, shift, desk, protection.admitted)
    server = rpc.Server([servicer.add_to], settings.factory.address, protection)
    figures = (server.calls, learning, metrics.reader(book))
    try:
        # The port first: it tells a second factory that there is one, before it takes over the
        # workflows that the first is running. Calls that need the queue wait for it.
        await server.start()
        try:
            await others.begin()
            await runtime.start(distiller.learn)
            await others.look()
            await factory.recover()
            watching = [
                asyncio.create_task(watch)
                for watch in (
                    factory.admit_for_ever(),
                    shift.run_for_ever(),
                    checks.run_for_ever(may=lambda: others.leads),
                    *([kept.follow_for_ever(), others.run_for_ever()] if kept.is_shared else []),
                )
            ]
            try:
                with shared_metrics.serving(settings, "factory", *figures):
                    await rpc.until_signal()
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
        finally:
            await server.stop()
            await runtime.stop()
            await others.close()
    finally:
        await connections.close()
        await kept.close()


def database_url(settings: config.Settings) -> str:
    """The URL of the database that holds tasks and workflows."""
    if settings.factory.database_url:
        return settings.factory.database_url
    folder = settings.state_path("factory")
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.resolve() / 'factory.sqlite'}"
