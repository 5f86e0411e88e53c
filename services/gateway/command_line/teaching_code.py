"""`teach-repo`: has the running cluster learn a code base, and tells what became of it."""

from __future__ import annotations

import os
import pathlib
import uuid

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import asking, code_report, following
from shared import repositories, terminal
from shared import settings as config
from shared.flight import samples, store
from shared.security import protection as protections

_LONGEST_TOLD = 200
"""Characters of a path that is none."""


async def teach(path: str, as_json: bool) -> None:
    """Links a repository into the state folder, has it learned, and prints a summary.

    Args:
        path: of the repository.
        as_json: print one JSON object.

    Raises:
        terminal.UsageError: the path is no repository, or its name is taken by another one.
        terminal.FailedError: the learning failed.
    """
    if not path.strip():
        raise terminal.UsageError("a repository is missing: make teach-repo path=PATH")
    settings = config.load()
    alive = cluster.Cluster(settings).supervisor.alive
    name = link(pathlib.Path(path), repositories.folder(settings))
    # One key for all attempts: a repeated call must not open a second task.
    key = uuid.uuid4().hex
    async with peers.connected(settings) as services:

        async def open_task() -> domain.Task:
            return await services.factory.teach(key, repository=name)

        task: domain.Task = await peers.while_restarting(open_task, alive)
        task = (await following.until_learned(services, [task.id]))[0]
        asking.check(task)
        code_base = await peers.while_restarting(lambda: services.distiller.code_base(task), alive)
        manifest = await peers.while_restarting(lambda: services.store.manifest(task.card), alive)
    datasets = store.StoreConnection(
        settings, protection=protections.Protection.configured(settings)
    )
    made = samples.from_bytes(await datasets.get(code_base.samples_digest))
    outcome = code_report.Outcome(task, code_base, manifest, code_report.to_read(made))
    if as_json:
        terminal.print_json(code_report.as_json(outcome))
    else:
        code_report.show(outcome, terminal.RESULT)


def link(path: pathlib.Path, folder: pathlib.Path) -> str:
    """Permits a repository to be learned: a link in the folder of those that may be.

    Args:
        path: of the repository; may begin with `~`.
        folder: the permitted ones; made where it is missing.

    Returns:
        The repository's name.

    Raises:
        terminal.UsageError: the path is no repository, or its name is taken by another one.
    """
    try:
        root = path.expanduser().resolve()
        found = (root / ".git").exists()
    except (OSError, RuntimeError) as error:
        # RuntimeError: a link that leads to itself, or no such user.
        raise terminal.UsageError(f"{str(path)[:_LONGEST_TOLD]}: {error}") from error
    if not found:
        raise terminal.UsageError(
            f"{path}: there is no git repository; give the folder that has its .git"
        )
    name = repositories.name_of(root)
    place = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(place):
        place.symlink_to(root, target_is_directory=True)
    elif place.resolve() != root:
        raise terminal.UsageError(
            f"{path}: the name {name} belongs to {place.resolve()}; rename one of the two folders, "
            f"or remove {place} where that one is not to be learned any more"
        )
    return name
