"""Ports of a local cluster."""

from __future__ import annotations

import socket

import pytest

from services.gateway.cluster import programs
from shared import errors
from shared import settings as config


def test_names_port_and_key_when_a_port_is_taken() -> None:
    settings = programs.on_free_ports(config.Settings())
    host, _, port = settings.factory.address.rpartition(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        with pytest.raises(errors.ConfigError, match=rf"port {port} \(factory\.address"):
            programs.check_ports(programs.of(settings))


def test_names_both_keys_when_two_services_share_a_port() -> None:
    settings = programs.on_free_ports(config.Settings())
    router = settings.router.model_copy(update={"address": settings.trainer.address})
    settings = settings.model_copy(update={"router": router})
    with pytest.raises(errors.ConfigError, match=r"router\.address and trainer\.address"):
        programs.check_ports(programs.of(settings))


def test_refuses_port_zero_when_the_cluster_must_be_found() -> None:
    settings = config.Settings(router=config.Router(address="127.0.0.1:0"))
    with pytest.raises(errors.ConfigError, match=r"router\.address"):
        programs.check_ports(programs.of(settings))


def test_gives_every_program_a_port_of_its_own_when_private() -> None:
    settings = programs.on_free_ports(config.Settings())
    addresses = [program.address for program in programs.of(settings)]
    assert len(set(addresses)) == len(addresses) == 8
    programs.check_ports(programs.of(settings))


def test_hierarchy_is_a_program_with_all_its_ports_when_it_is_enabled() -> None:
    wanted = config.Settings(hierarchy=config.Hierarchy(enabled=True))
    settings = programs.on_free_ports(wanted)
    *_, last = programs.of(settings)
    assert last.module == "services.hierarchy"
    assert [key for key, _ in last.listening] == [
        "hierarchy.address",
        "hierarchy.flight_address",
    ]
    programs.check_ports([last])
    shared = settings.hierarchy.model_copy(update={"flight_address": last.address})
    settings = settings.model_copy(update={"hierarchy": shared})
    with pytest.raises(errors.ConfigError, match=r"hierarchy\.address and hierarchy\.flight"):
        programs.check_ports(programs.of(settings))


def test_every_program_has_a_port_for_metrics_when_they_are_on() -> None:
    for enabled in (False, True):
        metrics = config.Metrics(enabled=enabled)
        wanted = config.Settings(
            telemetry=config.Telemetry(metrics=metrics),
            hierarchy=config.Hierarchy(enabled=True),
        )
        settings = programs.on_free_ports(wanted)
        for program in programs.of(settings):
            key = f"telemetry.metrics.{program.name}"
            found = dict(program.listening).get(key)
            addresses = settings.telemetry.metrics.addresses()
            assert found == (addresses.get(program.name) if enabled else None)
        programs.check_ports(programs.of(settings))


def test_metrics_are_20_ports_above_the_service_when_nothing_else_is_said() -> None:
    settings = config.Settings(hierarchy=config.Hierarchy(enabled=True))
    metrics = settings.telemetry.metrics.addresses()
    own = {one.name: one.address for one in programs.of(settings) if one.name in metrics}
    assert set(own) == set(metrics)
    for name, address in own.items():
        assert int(metrics[name].rpartition(":")[2]) == int(address.rpartition(":")[2]) + 20
