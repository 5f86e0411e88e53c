"""A process for the tests of supervision: says that it is there and waits."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    print("100 % awake", flush=True)
    signal.pause()
