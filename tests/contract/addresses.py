"""Addresses for servers that others must know before they listen."""

from __future__ import annotations

import random
import socket

_PORTS = range(10_000, 32_000)
"""Below those that systems give to whoever asks for any port or opens a connection: between a
test's choice and its server's start nobody is given one of these."""
_chance = random.SystemRandom()


def free_address() -> str:
    """`host:port` on loopback where nobody listens; tests in other processes get others."""
    while True:
        port = _chance.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return f"127.0.0.1:{port}"
