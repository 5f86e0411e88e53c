"""The processes of a local cluster: what runs, where each listens, and which key says so.

Starts nothing; see `supervision` and `cluster`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
from collections.abc import Sequence
from typing import Literal

from shared import errors
from shared import settings as config

# Below the range that the system hands out to clients, so that no outgoing connection of anybody
# takes a port between our look at it and the service's bind.
_FREE_PORTS = range(20000, 32000)
_HOST = "127.0.0.1"
_CLOSING_S, _LONGEST_STOP_S = 5.0, 50.0
"""What a drained gateway needs to close; what `make down` waits for at most."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One process."""

    name: str
    module: str
    """Run as `python -m MODULE`."""
    address: str
    """`host:port`."""
    key: str
    """The key of config.yaml that holds the address."""
    speaks: Literal["grpc", "flight", "http"] = "grpc"
    """How it is asked whether it serves: Arrow Flight knows no health checks."""
    stop_s: float = 15.0
    """So long it may take to end."""
    more: tuple[tuple[str, str], ...] = ()
    """Key and address of whatever else it listens on."""

    @property
    def listening(self) -> tuple[tuple[str, str], ...]:
        """Key and address of all that it listens on."""
        return ((self.key, self.address), *self.more)


def of(settings: config.Settings) -> tuple[Program, ...]:
    """All programs of one cluster, in the order in which they start."""
    return tuple(_with_metrics(one, settings.telemetry.metrics) for one in _services(settings))


def _with_metrics(program: Program, metrics: config.Metrics) -> Program:
    address = metrics.addresses().get(program.name)
    if address is None or not metrics.enabled:
        return program
    key = f"telemetry.metrics.{program.name}"
    return dataclasses.replace(program, more=(*program.more, (key, address)))


def _services(settings: config.Settings) -> tuple[Program, ...]:
    store = settings.card_store
    return (
        Program("card_store", "services.card_store", store.address, "card_store.address"),
        Program(
            "card_store_data",
            "services.card_store.data_plane",
            store.flight_address,
            "card_store.flight_address",
            speaks="flight",
        ),
        Program("router", "services.router", settings.router.address, "router.address"),
        Program("distiller", "services.distiller", settings.distiller.address, "distiller.address"),
        Program("trainer", "services.trainer", settings.trainer.address, "trainer.address"),
        Program("inference", "services.inference", settings.inference.address, "inference.address"),
        Program("factory", "services.factory", settings.factory.address, "factory.address"),
        *_gateway(settings.gateway),
        *_hierarchy(settings.hierarchy),
    )


def _gateway(gateway: config.Gateway) -> tuple[Program, ...]:
    if not gateway.enabled:
        return ()
    return (
        Program(
            "gateway",
            "services.gateway.web",
            gateway.address,
            "gateway.address",
            speaks="http",
            stop_s=min(gateway.drain_s + _CLOSING_S, _LONGEST_STOP_S),
        ),
    )


def _hierarchy(hierarchy: config.Hierarchy) -> tuple[Program, ...]:
    if not hierarchy.enabled:
        return ()
    return (
        Program(
            "hierarchy",
            "services.hierarchy",
            hierarchy.address,
            "hierarchy.address",
            more=(("hierarchy.flight_address", hierarchy.flight_address),),
        ),
    )


def check_ports(programs: Sequence[Program]) -> None:
    """Makes sure that every program can listen where it is told to.

    Raises:
        errors.ConfigError: names the port, the key and what to do.
    """
    keys: dict[str, str] = {}
    for key, address in (one for program in programs for one in program.listening):
        if address in keys:
            raise errors.ConfigError(
                f"{keys[address]} and {key} are both {address}; give each service a port of its "
                "own in config.yaml"
            )
        keys[address] = key
        check_port(key, address)


def check_port(key: str, address: str) -> None:
    """Makes sure that a program can listen at one address.

    Raises:
        errors.ConfigError: names the port, the key and what to do.
    """
    host, _, port = address.rpartition(":")
    if not 0 < int(port) < 65536:
        raise errors.ConfigError(f"{key}: a local cluster needs a port from 1 to 65535, not {port}")
    try:
        _bind(host, int(port))
    except OSError as error:
        raise errors.ConfigError(
            f"port {port} ({key}: {address}) can't be used: {error.strerror}. Stop the "
            "process that holds it, or choose another port in config.yaml"
        ) from error


def on_free_ports(settings: config.Settings) -> config.Settings:
    """The same settings with a free port of this machine for every service."""
    services = (
        *("router", "factory", "distiller", "trainer", "inference", "card_store", "hierarchy"),
        "gateway",
    )
    others = (("card_store", "flight_address"), ("hierarchy", "flight_address"))
    metrics = settings.telemetry.metrics
    free = iter(_free_ports(len(services) + len(others) + len(metrics.addresses())))
    changed: dict[str, dict[str, str]] = {}
    for name, field in (*((name, "address") for name in services), *others):
        changed.setdefault(name, {})[field] = f"{_HOST}:{next(free)}"
    metrics = metrics.model_copy(
        update={name: f"{_HOST}:{next(free)}" for name in metrics.addresses()}
    )
    telemetry = settings.telemetry.model_copy(update={"metrics": metrics})
    return settings.model_copy(
        update={
            name: getattr(settings, name).model_copy(update=addresses)
            for name, addresses in changed.items()
        }
        | {"telemetry": telemetry}
    )


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    # Two private clusters started at once must not look at the same ports in the same order.
    for port in random.SystemRandom().sample(_FREE_PORTS, len(_FREE_PORTS)):
        with contextlib.suppress(OSError):
            _bind(_HOST, port)
            found.append(port)
        if len(found) == count:
            return found
    raise errors.UnavailableError(f"fewer than {count} ports are free on {_HOST}")


def _bind(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the services do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
