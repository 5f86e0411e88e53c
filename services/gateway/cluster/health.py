"""Whether the processes of a cluster answer.

Blocks; used by `cluster` while it starts and by `status`.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import ssl
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.gateway.cluster import programs as programs_module
from shared.security import protection as protections

_TIMEOUT_S = 1.0
LIVES, READY = "/healthz", "/readyz"
"""Where the gateway tells whether it lives, and whether it could answer a question."""


def healthy(
    programs: Iterable[programs_module.Program],
    protection: protections.Protection = protections.OPEN,
    gateway: str = LIVES,
) -> set[str]:
    """Names of those that answer and say that they serve.

    Args:
        programs: to ask.
        protection: as they have it.
        gateway: what the gateway is asked, `LIVES` or `READY`.
    """
    asked = tuple(programs)
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        answers = pool.map(lambda program: _is_healthy(program, protection, gateway), asked)
        return {program.name for program, well in zip(asked, answers, strict=True) if well}


def _is_healthy(
    program: programs_module.Program, protection: protections.Protection, gateway: str
) -> bool:
    if program.speaks == "http":
        return _answers_http(program.address, protection, gateway)
    with _channel(program.address, protection) as channel:
        try:
            if program.speaks == "flight":
                # Flight is gRPC underneath: a finished handshake is more than an open port.
                grpc.channel_ready_future(channel).result(timeout=_TIMEOUT_S)
                return True
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S
            )
        except (grpc.RpcError, grpc.FutureTimeoutError):
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(address: str, protection: protections.Protection) -> grpc.Channel:
    # Without a token: whether a service lives may be asked by anybody.
    credentials = protection.channel_credentials()
    if credentials is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, credentials, protection.channel_options())


def _answers_http(address: str, protection: protections.Protection, path: str) -> bool:
    if protection.encrypts_serving:
        context = ssl.create_default_context(cadata=protection.authority.decode() or None)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            address, timeout=_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
