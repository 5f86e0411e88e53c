"""How benchmarks end that are told to: together with what they started."""

from __future__ import annotations

import signal
import sys

_TERMINATED = 143
"""As a shell tells of SIGTERM."""


def at_sigterm() -> None:
    """Has SIGTERM leave all `with` blocks, which end their processes, instead of killing."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
