"""One address in front of several servers, as a Service of Kubernetes is: TCP, nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

_PIECE = 65_536


@contextlib.asynccontextmanager
async def listening(address: str, behind: Sequence[str]) -> AsyncIterator[None]:
    """Hands each connection to the next server that takes it."""
    turn = itertools.count()
    open_now: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        first = next(turn)
        try:
            for at in range(len(behind)):
                host, _, port = behind[(first + at) % len(behind)].rpartition(":")
                try:
                    there = await asyncio.open_connection(host, int(port))
                except OSError:
                    continue
                await _both(reader, writer, *there)
                return
        finally:
            open_now.discard(task)
            writer.transport.abort()

    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(handle, host, int(port))
    try:
        yield
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _both(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there_reader: asyncio.StreamReader,
    there_writer: asyncio.StreamWriter,
) -> None:
    """Copies either way until one side has ended; then both have."""
    ways = [
        asyncio.create_task(_copy(reader, there_writer)),
        asyncio.create_task(_copy(there_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        there_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
