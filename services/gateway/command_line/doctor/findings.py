"""What a check found, and how all checks are made within a limit.

Knows nothing of what is checked.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from shared import errors

Level = Literal["ok", "warning", "error"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence about one thing."""

    about: str
    """What was looked at, in a word or two."""
    level: Level
    text: str
    remedy: str = ""
    """What to do about it; empty where it is well."""


Check = Callable[[], Iterable[Finding]]


def ok(about: str, text: str) -> Finding:
    """It is well."""
    return Finding(about, "ok", text)


def warning(about: str, text: str, remedy: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(about, "warning", text, remedy)


def error(about: str, text: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(about, "error", text, remedy)


def gathered(checks: Mapping[str, Check], limit_s: float) -> list[Finding]:
    """What all checks found, in their order.

    Args:
        checks: by what they look at; each runs in a thread of its own.
        limit_s: for all of them. One that is not done by then is left behind: whoever hangs, on a
            network folder or a port that swallows everything, keeps nobody waiting.
    """
    found: dict[str, list[Finding]] = {}

    def run(about: str, check: Check) -> None:
        try:
            found[about] = list(check())
        except errors.SkillmeshError as trouble:
            found[about] = [error(about, str(trouble), "see the message")]
        except Exception as trouble:
            text = f"the check itself failed: {type(trouble).__name__}: {trouble}"
            found[about] = [warning(about, text, "please report it")]

    threads = {
        about: threading.Thread(target=run, args=(about, check), daemon=True)
        for about, check in checks.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + limit_s
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    slow = f"not known after {limit_s:g} s"
    return [
        finding
        for about in checks
        for finding in found.get(
            about, [warning(about, slow, "try again; look at what keeps it waiting")]
        )
    ]
