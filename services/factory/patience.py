"""Waits for services that are away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared import errors
from shared.rpc import client

T = TypeVar("T")


async def patiently(
    attempt: Callable[[], Awaitable[T]], total_s: float, clock: Callable[[], float]
) -> T:
    """Repeats an idempotent attempt while its service is away.

    Args:
        attempt: what to do.
        total_s: for how long.
        clock: seconds, monotonic.
    """

    async def once() -> T | errors.TeacherUnavailableError:
        try:
            return await attempt()
        except errors.TeacherUnavailableError as error:
            # The distiller has been through all its teachers. Waiting here would block the
            # queue for as long as they are down; the task fails and can be retried.
            return error

    outcome = await client.retried(once, total_s, clock)
    if isinstance(outcome, errors.TeacherUnavailableError):
        raise outcome
    return outcome
