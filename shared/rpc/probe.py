"""Whether a process of this machine serves: `python -m shared.rpc.probe KEY`, for supervisors.

KEY names the setting with the address, such as `router.address`: gRPC's health is asked for, of an
Arrow Flight server (`*.flight_address`) the handshake, of `gateway.address` GET /readyz, or what
--path names. Ends with 0 where it serves and with 1 where it does not. Shows no token: whether
somebody lives may be asked by anybody.
"""

from __future__ import annotations

import argparse
import http.client
import pathlib
import ssl
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared import errors
from shared import settings as config
from shared.security import protection as protections

_EVERYWHERE = ("0.0.0.0", "[::]", "::")


def probe(settings: config.Settings, key: str, path: str, timeout_s: float) -> str:
    """What is wrong with the server that listens where a setting says; empty for nothing.

    Raises:
        errors.ConfigError: there is no such setting, or a certificate can't be read.
    """
    section, _, name = key.partition(".")
    address = getattr(getattr(settings, section, None), name, None)
    if not isinstance(address, str):
        raise errors.ConfigError(f"{key} is no address; name one such as router.address")
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host in _EVERYWHERE else host
    protection = protections.Protection.configured(settings)
    if section == "gateway":
        return _asked_http(host, int(port), path, protection, settings, timeout_s)
    credentials = protection.channel_credentials()
    target = f"{host}:{port}"
    with (
        grpc.insecure_channel(target)
        if credentials is None
        else grpc.secure_channel(target, credentials, protection.channel_options())
    ) as channel:
        try:
            if name == "flight_address":
                grpc.channel_ready_future(channel).result(timeout=timeout_s)
                return ""
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.FutureTimeoutError:
            return f"{target} did not answer within {timeout_s:g} s"
        except grpc.RpcError as error:
            return f"{target}: {error.code().name}"
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"{target} says {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}"


def _asked_http(
    host: str,
    port: int,
    path: str,
    protection: protections.Protection,
    settings: config.Settings,
    timeout_s: float,
) -> str:
    connection: http.client.HTTPConnection
    if protection.encrypts_serving:
        context = ssl.create_default_context(cafile=settings.security.tls.authority)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        told = answer.read(200).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port}{path}: {error}"
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{path}: {answer.status} {told}"


def main() -> None:
    """Asks once."""
    parser = argparse.ArgumentParser(prog="python -m shared.rpc.probe")
    parser.add_argument("key", help="such as router.address")
    parser.add_argument("--config", type=pathlib.Path, help="default: config.yaml")
    parser.add_argument("--path", default="/readyz", help="of the gateway")
    parser.add_argument("--timeout", type=float, default=4.0, help="seconds")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        trouble = probe(settings, arguments.key, arguments.path, arguments.timeout)
    except errors.ConfigError as error:
        trouble = str(error)
    if trouble:
        sys.exit(trouble)


if __name__ == "__main__":
    main()
