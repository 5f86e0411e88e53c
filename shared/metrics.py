"""Metrics for Prometheus, over HTTP: read from a collector whenever somebody scrapes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import prometheus_client
from prometheus_client import registry

from shared import errors


@contextlib.contextmanager
def serving(address: str, key: str, *collectors: registry.Collector) -> Iterator[int]:
    """Serves `/metrics` in threads of its own.

    Args:
        address: `host:port`; port 0 takes a free one.
        key: of config.yaml that holds the address.
        collectors: asked for their figures at each scrape, by a thread.

    Yields:
        The port.

    Raises:
        errors.ConfigError: the port is taken.
    """
    collected = prometheus_client.CollectorRegistry()
    for collector in collectors:
        collected.register(collector)
    host, _, port = address.rpartition(":")
    try:
        server, thread = prometheus_client.start_http_server(int(port), host, collected)
    except OSError as error:
        raise errors.ConfigError(
            f"can't listen on {address} ({key}): {error}; the port may be taken, choose another in "
            "config.yaml or stop the other process"
        ) from error
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
