"""Ports of a local cluster."""

from __future__ import annotations

import socket

import pytest

from services.gateway import programs
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
    assert len(set(addresses)) == len(addresses) == 7
    programs.check_ports(programs.of(settings))
