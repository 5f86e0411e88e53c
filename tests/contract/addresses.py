"""Addresses for servers that others must know before they listen."""

from __future__ import annotations

import socket


def free_address() -> str:
    """`host:port` on loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
