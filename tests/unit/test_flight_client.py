"""What a client does about a data plane that says nothing any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.flight
import pytest

from shared import errors
from shared.flight import client as flight_client


class _Plane(pyarrow.flight.FlightServerBase):  # type: ignore[misc]
    """Sends some chunks and then waits before it ends."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.may_end = threading.Event()

    def do_get(self, context: Any, ticket: Any) -> pyarrow.flight.GeneratorStream:
        return pyarrow.flight.GeneratorStream(flight_client.RAW_SCHEMA, self._chunks())

    def _chunks(self) -> Iterator[pa.RecordBatch]:
        for chunk in (b"one", b"two"):
            column = pa.array([chunk], pa.large_binary())
            yield pa.record_batch([column], schema=flight_client.RAW_SCHEMA)
        self.may_end.wait(30)


@pytest.fixture
def plane() -> Iterator[_Plane]:
    served = _Plane()
    yield served
    served.may_end.set()
    served.shutdown()


def test_fetch_ends_typed_when_nothing_comes_for_too_long(plane: _Plane) -> None:
    connection = flight_client.LoRAFlightClient(f"127.0.0.1:{plane.port}")
    chunks = connection.chunks("0" * 64, silence_s=0.2)
    assert [next(chunks).to_pybytes(), next(chunks).to_pybytes()] == [b"one", b"two"]
    with pytest.raises(errors.UnavailableError, match="silent"):
        next(chunks)
    connection.close()


def test_fetch_is_whole_when_the_client_itself_takes_its_time(plane: _Plane) -> None:
    connection = flight_client.LoRAFlightClient(f"127.0.0.1:{plane.port}")
    chunks = connection.chunks("0" * 64, silence_s=0.2)
    next(chunks)
    threading.Event().wait(0.4)
    plane.may_end.set()
    assert [chunk.to_pybytes() for chunk in chunks] == [b"two"]
    connection.close()
