"""The operator's commands for a store's files: verify, gc, retention, compact, backup, restore."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from services.card_store.admin import backup, connection
from shared import errors, terminal
from shared import settings as config
from shared.pb import maintenance_pb2
from shared.rpc import client

Store = connection.Address
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
Folder = Annotated[pathlib.Path, typer.Argument(help="Of the backup.")]
_LONG_S = 3600.0


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (verify, gc, retention, compact):
        app.command()(command)
    app.command("backup")(back_up)
    app.command()(restore)


def verify(store: Store = "") -> None:
    """Read every committed file and compare it with its digest."""

    async def command() -> None:
        faults, seen = 0, maintenance_pb2.VerifyProgress()
        async with connection.opened(store) as calls, client.typed_errors():
            request = maintenance_pb2.VerifyRequest()
            async for seen in calls.upkeep.Verify(request, timeout=_LONG_S):
                if seen.fault:
                    faults += 1
                    terminal.RESULT.print(f"{seen.digest}: {terminal.escape(seen.fault)}")
        terminal.RESULT.print(
            f"{seen.total} files, {terminal.size(seen.bytes)} read, {faults} damaged"
        )
        if faults:
            raise terminal.FailedError(
                f"{faults} files are damaged: restore them from a backup, or delete their cards"
            )

    terminal.run(command)


def gc(dry_run: DryRun = False, store: Store = "") -> None:
    """Remove the files that no record needs."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            request = maintenance_pb2.CollectGarbageRequest(dry_run=dry_run)
            gone = await client.call(calls.upkeep.CollectGarbage, request, _LONG_S)
        _print_gone(gone.digests, "to remove" if dry_run else "removed")
        terminal.RESULT.print(f"{len(gone.digests)} files, {terminal.size(gone.bytes)}")

    terminal.run(command)


def retention(dry_run: DryRun = False, store: Store = "") -> None:
    """Delete the versions and datasets that card_store.retention no longer keeps."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            request = maintenance_pb2.ApplyRetentionRequest(dry_run=dry_run)
            gone = await client.call(calls.upkeep.ApplyRetention, request, _LONG_S)
        verb = "to delete" if dry_run else "deleted"
        _print_gone(gone.cards, f"card {verb}")
        _print_gone(gone.datasets, f"dataset {verb}")
        terminal.RESULT.print(f"{len(gone.cards)} cards, {len(gone.datasets)} datasets")

    terminal.run(command)


def compact(
    keep: Annotated[int, typer.Option(help="The newest lines that stay.")] = 100_000,
    store: Store = "",
) -> None:
    """Drop old lines of the revision log; who was away for longer lists the cards anew."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            request = maintenance_pb2.CompactLogRequest(keep_lines=keep)
            done = await client.call(calls.upkeep.CompactLog, request, _LONG_S)
        terminal.RESULT.print(f"the log begins after revision {done.oldest_revision}")

    terminal.run(command)


def back_up(folder: Folder) -> None:
    """Copy this machine's store into a folder, while it runs; again: only what is new."""
    with terminal.exit_codes():
        _print_copied(backup.back_up(config.load(), folder), "backed up")


def restore(folder: Folder) -> None:
    """Make an empty store what it was when the backup was taken."""
    with terminal.exit_codes():
        _print_copied(backup.restore(config.load(), folder), "restored")


def _print_gone(digests: list[str], what: str) -> None:
    for digest in digests:
        terminal.RESULT.print(f"{what}: {digest}")


def _print_copied(copied: backup.Copied, verb: str) -> None:
    for fault in copied.faults:
        terminal.RESULT.print(terminal.escape(fault))
    terminal.RESULT.print(
        f"{verb}: {copied.files} files, {terminal.size(copied.size_bytes)}; "
        f"{copied.present} were there already"
    )
    if copied.faults:
        raise errors.IntegrityError(f"{len(copied.faults)} files could not be copied")
