"""Where people reach a cluster, and how it is asked whether its gateway lives."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from services.gateway.cluster import health, programs, urls
from shared import settings as config


@pytest.fixture
def answering() -> Iterator[http.server.HTTPServer]:
    """Says that it lives where it is asked at `/healthz`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *unused: object) -> None:
            """Quietly."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def gateway_at(address: str) -> programs.Program:
    settings = config.Settings(gateway=config.Gateway(address=address))
    [found] = [one for one in programs.of(settings) if one.name == "gateway"]
    return found


def test_gateway_lives_when_it_says_so_over_http(
    answering: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_S", 30.0)
    lives = gateway_at(f"127.0.0.1:{answering.server_port}")
    assert health.healthy([lives]) == {"gateway"}


def test_gateway_is_not_ready_when_it_only_lives(answering: http.server.HTTPServer) -> None:
    found = [gateway_at(f"127.0.0.1:{answering.server_port}")]
    assert health.healthy(found, gateway=health.READY) == set()


def test_gateway_does_not_live_when_nobody_listens(answering: http.server.HTTPServer) -> None:
    address = f"127.0.0.1:{answering.server_port}"
    answering.shutdown()
    answering.server_close()
    assert health.healthy([gateway_at(address)]) == set()


def test_gateway_runs_only_when_it_is_enabled() -> None:
    off = config.Settings(gateway=config.Gateway(enabled=False))
    assert "gateway" not in [one.name for one in programs.of(off)]
    assert urls.addresses(off) == []


def test_tells_both_addresses_by_a_host_that_can_be_opened() -> None:
    everywhere = config.Settings(
        gateway=config.Gateway(address="0.0.0.0:7400"),
        cluster=config.Cluster(trusted_network=True),
    )
    assert urls.addresses(everywhere) == [
        ("API", "http://127.0.0.1:7400/v1"),
        ("console", "http://127.0.0.1:7400/console/"),
    ]
    without = config.Settings(gateway=config.Gateway(console=False))
    assert [name for name, _ in urls.addresses(without)] == ["API"]


def test_is_given_the_time_that_it_drains_before_it_is_killed() -> None:
    settings = config.Settings(gateway=config.Gateway(drain_s=20))
    [found] = [one for one in programs.of(settings) if one.name == "gateway"]
    assert found.stop_s == 25
