"""How every service process begins and ends: parse, configure, run until a signal."""

from __future__ import annotations

import argparse
import asyncio
import gc
import pathlib
import resource
import sys
from collections.abc import Callable, Coroutine

from shared import errors, telemetry
from shared import settings as config
from shared.telemetry import exporting

_WRONG_CONFIGURATION = 2


def run(role: str, serve: Callable[[config.Settings], Coroutine[None, None, None]]) -> None:
    """Reads the settings and runs one service; to be called when all is imported.

    Args:
        role: name of the service, for logs and help.
        serve: wires the service and returns when it was told to stop.
    """
    # What was imported stays for good: no collection need look through it again.
    gc.freeze()
    parser = argparse.ArgumentParser(prog=f"python -m services.{role}")
    parser.add_argument("--config", type=pathlib.Path, help="default: config.yaml")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        telemetry.configure(settings.telemetry, role)
        with exporting.exported(settings, role):
            asyncio.run(serve(settings))
    except errors.ConfigError as error:
        print(f"{role}: {error}", file=sys.stderr)
        sys.exit(_WRONG_CONFIGURATION)
    finally:
        # The interpreter would search a model and its libraries for cycles before it ends, for
        # seconds of a process that is told to stop; what it holds goes with it.
        gc.freeze()


def limit_memory(most_bytes: int) -> None:
    """Keeps this process from taking the machine's memory.

    One small compressed Arrow message can unpack to gigabytes before any code of ours sees it:
    with a limit that upload fails, or at worst this process, which loses nothing by it.

    Args:
        most_bytes: of all that it writes to, stacks of its threads included.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most_bytes = min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, hard))
