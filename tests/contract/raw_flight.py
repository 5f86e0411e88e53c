"""Flight streams written message by message, so that each byte can be wrong.

pyarrow's own client and server send only what Arrow makes; a stranger's need not. The messages are
those of Flight.proto in https://arrow.apache.org/docs/format/Flight.html, written by hand.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import struct
from collections.abc import Iterable, Iterator

import grpc
import pyarrow as pa

from shared.flight import client as flight_client

_SERVICE = "arrow.flight.protocol.FlightService"
_DESCRIPTOR, _HEADER, _BODY = 1, 2, 1000
"""Numbers of the fields of FlightData."""
_COMMAND = b"\x08\x02"
"""FlightDescriptor.type = CMD."""
_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True)
class Message:
    """One FlightData."""

    header: bytes
    """The flatbuffer of an Arrow message."""
    body: bytes
    command: bytes = b""

    def encoded(self) -> bytes:
        descriptor = _COMMAND + _field(2, self.command) if self.command else b""
        return (
            _field(_DESCRIPTOR, descriptor) * bool(descriptor)
            + _field(_HEADER, self.header)
            + _field(_BODY, self.body)
        )


def message(part: pa.Schema | pa.RecordBatch, command: bytes = b"") -> Message:
    """What Arrow itself would send."""
    data = bytes(part.serialize())
    _, header_bytes = struct.unpack_from("<ii", data)
    return Message(data[8 : 8 + header_bytes], data[8 + header_bytes :], command)


def chunk(data: bytes, offsets: tuple[int, int] | None = None) -> Message:
    """A chunk of a file, whose offsets say where it lies in the batch."""
    column = pa.array([data], pa.large_binary())
    sent = message(pa.record_batch([column], schema=flight_client.RAW_SCHEMA))
    assert struct.unpack_from("<qq", sent.body) == (0, len(data))
    if offsets is None:
        return sent
    return dataclasses.replace(sent, body=struct.pack("<qq", *offsets) + sent.body[16:])


def put(address: str, messages: Iterable[Message]) -> grpc.StatusCode:
    """Sends an upload; how it ended, and OK if it was taken."""
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/{_SERVICE}/DoPut")
        try:
            list(call((one.encoded() for one in messages), timeout=_TIMEOUT_S))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


class DataPlane:
    """Answers every download with the same messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        handler = grpc.unary_stream_rpc_method_handler(self._sent)
        handlers = grpc.method_handlers_generic_handler(_SERVICE, {"DoGet": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _sent(self, ticket: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return iter([one.encoded() for one in self.messages])

    def stop(self) -> None:
        self._server.stop(None).wait()


def _field(number: int, value: bytes) -> bytes:
    """A field of length and bytes, as protobuf has it."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])
