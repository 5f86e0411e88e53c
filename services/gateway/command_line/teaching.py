"""`teach`: has the running cluster learn a topic or a document."""

from __future__ import annotations

import pathlib
import uuid

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import asking, following, listing
from shared import settings as config
from shared import terminal
from shared.rpc import client


async def teach(topic: str, document: str, wait: bool, as_json: bool) -> None:
    """Opens a learning task and prints it.

    Args:
        topic: what to learn, in words; or
        document: a file that joins the cluster's knowledge and is learned.
        wait: until it is learned.
        as_json: print one JSON object.

    Raises:
        terminal.UsageError: neither or both are given, or the file can't be read.
        terminal.FailedError: the learning failed.
    """
    if bool(topic.strip()) == bool(document.strip()):
        raise terminal.UsageError('give one of both: make teach topic="…" or make teach doc=PATH')
    path = pathlib.Path(document)
    text, pdf = "", b""
    if document.strip() and path.suffix.lower() == ".pdf":
        pdf = _read_bytes(path)
    elif document.strip():
        text = read_document(path)
    settings = config.load()
    alive = cluster.Cluster(settings).supervisor.alive
    # One key for all attempts: a repeated call must not open a second task.
    key = uuid.uuid4().hex
    async with peers.connected(settings) as services:

        async def open_task() -> domain.Task:
            if document.strip():
                await services.distiller.add_document(path.name, text, pdf)
                return await services.factory.teach(key, document=path.name)
            return await services.factory.teach(key, topic=topic)

        task: domain.Task = await peers.while_restarting(open_task, alive)
        if wait:
            task = (await following.until_learned(services, [task.id]))[0]
    if as_json:
        terminal.print_json(task)
    else:
        what = f"learned as {listing.short(task.card)}" if task.card else task.status.lower()
        terminal.RESULT.print(terminal.escape(f"task {task.id}: {what}"), soft_wrap=True)
    if wait:
        asking.check(task)


def read_document(path: pathlib.Path) -> str:
    """The text of a document.

    Raises:
        terminal.UsageError: there is no such file, or it is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise terminal.UsageError(f"document {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise terminal.UsageError(f"document {path}: its text is not UTF-8") from error


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise terminal.UsageError(f"document {path}: {error.strerror}") from error
    if not data:
        raise terminal.UsageError(f"document {path} is empty")
    if len(data) > client.LARGEST_FILE_BYTES:
        raise terminal.UsageError(
            f"document {path}: {len(data):,} bytes; a PDF that is sent has at most "
            f"{client.LARGEST_FILE_BYTES:,}: copy it into the cluster's knowledge folder, then "
            "teach it by a topic"
        )
    return data
