"""How requests end that fail before their turn, or whose turn never comes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from services.inference import generations


@contextlib.contextmanager
def ended_if_failed(request: generations.Request) -> Iterator[None]:
    """Ends a request that fails before its turn."""
    try:
        yield
    except BaseException:
        request.ended.set_result(None)
        raise


def ended_unheard(request: generations.Request, job: concurrent.futures.Future[None]) -> None:
    """Ends a request whose turn never came: cancelled, or refused by a node that stops."""
    if job.cancelled():
        request.ended.set_result(None)
    elif (error := job.exception()) is not None:
        request.ended.set_exception(error)


def soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function in the loop, from whatever thread."""
    # The loop may be closed already when the model notices that it should stop.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
