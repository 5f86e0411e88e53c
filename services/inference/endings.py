"""How requests end that fail before their turn, or whose turn never comes."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def ended_if_failed(ended: concurrent.futures.Future[Any]) -> Iterator[None]:
    """Ends a request that fails before its turn.

    Args:
        ended: of the request; its result is None then.
    """
    try:
        yield
    except BaseException:
        ended.set_result(None)
        raise


def ended_unheard(
    ended: concurrent.futures.Future[Any], job: concurrent.futures.Future[None]
) -> None:
    """Ends a request whose turn never came: cancelled, or refused by a node that stops."""
    if job.cancelled():
        ended.set_result(None)
    elif (error := job.exception()) is not None:
        ended.set_exception(error)
