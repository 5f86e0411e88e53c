"""Tries one request to a teacher again, as its answers ask, within one deadline.

The SDKs' own retries are switched off. They wait as long as a header says, whatever time is left:
OpenAI's up to two minutes, Anthropic's for days. A caller would be told of a timeout then, instead
of what the provider said.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.distiller.providers import failures
from shared import errors

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_JITTER = 0.25


async def within(
    name: str, timeout_s: float, retries: int, attempt: Callable[[], Awaitable[T]]
) -> T:
    """The result of the first attempt that succeeds.

    Args:
        name: the provider, for messages.
        timeout_s: for all attempts and the pauses between them.
        retries: attempts besides the first, at most.
        attempt: sends the request once.

    Raises:
        failures.DownError: no time is left, or the provider asks for a longer wait than that.
        errors.SkillmeshError: the last attempt's.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    last = ""
    try:
        async with asyncio.timeout_at(deadline):
            for tried in range(retries + 1):
                try:
                    return await attempt()
                except errors.SkillmeshError as error:
                    advice = failures.advice(error)
                    if not advice.again or tried == retries:
                        raise
                    last = str(error)
                    pause_s = _pause_s(tried, advice.after_s)
                    if loop.time() + pause_s >= deadline:
                        raise failures.DownError(
                            f"{last}; it asks for a pause of {pause_s:.0f} s, longer than is left "
                            f"of the {timeout_s:g} s for one answer (timeout_s in config.yaml)"
                            if advice.after_s is not None
                            else last,
                            failures.Advice(after_s=advice.after_s, charged=advice.charged),
                        ) from None
                    await asyncio.sleep(pause_s)
    except TimeoutError:
        raise failures.timed_out(name, timeout_s, last) from None
    raise errors.InternalError("unreachable: the last attempt returns or raises")


def _pause_s(tried: int, after_s: float | None) -> float:
    if after_s is not None:
        return after_s
    grown = min(_FIRST_PAUSE_S * 2.0**tried, _LONGEST_PAUSE_S)
    return grown * (1 - _JITTER * random.random())
