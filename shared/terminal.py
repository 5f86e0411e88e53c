"""How command lines speak: results on stdout, everything else on stderr, exit codes.

Knows nothing about the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import rich.console
import rich.markup

from shared import errors

FAILED, WRONG_USAGE, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = (
    "Exit codes: 0 it worked; 1 it failed, the message says why; 2 wrong usage; 3 a service can't "
    "be reached or is busy, so that the same may work later; 130 interrupted."
)
"""For the help of command lines."""

_PIPE_COLUMNS = 200


class _Console(rich.console.Console):
    """A console that cuts ids and names off for a screen alone, never for a pipe."""

    @property
    def size(self) -> rich.console.ConsoleDimensions:
        """Columns and lines of the screen; in a pipe enough, unless COLUMNS says otherwise."""
        found = super().size
        if self.is_terminal or "COLUMNS" in os.environ:
            return found
        return rich.console.ConsoleDimensions(max(found.width, _PIPE_COLUMNS), found.height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size


RESULT: rich.console.Console = _Console(highlight=False)
"""Standard output."""
NOTES: rich.console.Console = _Console(stderr=True, highlight=False)
"""Standard error: progress and errors, so that stdout holds the result alone."""


class UsageError(errors.InvalidInputError):
    """The command was called wrongly."""


class FailedError(errors.PreconditionError):
    """The command did its work, and the outcome is a failure."""


def print_json(value: object) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=_plain) + "\n")
    sys.stdout.flush()


def escape(text: str) -> str:
    """Text of users and models, which may look like markup of rich."""
    return rich.markup.escape(text)


def size(size_bytes: float) -> str:
    """A size for people: `298 kB`, `1.2 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes / 1e3:,.0f} kB"


def moment(at_ms: int) -> str:
    """A Unix time in local time, for people."""
    return datetime.datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def run(command: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs one command; every expected failure becomes one line on stderr and an exit code."""
    with exit_codes():
        asyncio.run(command())


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turns errors into messages and exit codes."""
    # `timeout` and process managers end a command by SIGTERM: what it started must end with it.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except UsageError as error:
        _say(error, WRONG_USAGE)
    except errors.SkillmeshError as error:
        _say(error, UNAVAILABLE if error.retryable else FAILED)
    except UnicodeEncodeError as error:
        # Python keeps bytes of arguments that are no UTF-8 as halves of surrogate pairs.
        if not any("\ud800" <= one <= "\udfff" for one in error.object):
            raise
        _say(f"{error.object[:80]!a} is not UTF-8; give it in that encoding", WRONG_USAGE)
    except BrokenPipeError:
        raise  # Whoever read the output has read enough: typer ends in silence.
    except OSError as error:
        # A full disk, a folder that is another user's: nothing that a traceback explains better.
        _say(error, FAILED)
    except KeyboardInterrupt:
        _say("interrupted", INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(what: object, code: int) -> None:
    sys.stderr.write(f"error: {what}\n")
    raise SystemExit(code)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
