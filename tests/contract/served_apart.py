"""Runs a gRPC server of a test in a thread of its own.

For command lines, which run a loop and take signals in the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from shared.rpc import server as rpc


@contextlib.contextmanager
def served(*adds: Callable[[Any], str]) -> Iterator[int]:
    """A server with these services; gives the port that it listens on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> rpc.Server:
        server = rpc.Server(list(adds), "127.0.0.1:0")
        await server.start()
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        try:
            yield server.port
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
