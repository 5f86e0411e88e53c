"""How the distiller puts datasets into a store, against a stand-in of its two planes."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import pyarrow.flight
import pytest

from shared import errors
from shared import settings as config
from shared.flight import datasets, store
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import server as rpc_server
from tests.unit.distiller.fakes import pair

DATA = datasets.to_bytes([pair("How long is it?", "412 m")])


class _DataPlane(pyarrow.flight.FlightServerBase):  # type: ignore[misc]
    """Keeps what arrives; is away for the first upload."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.uploads: list[tuple[bytes, bytes]] = []
        self.attempts = 0

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        self.attempts += 1
        if self.attempts == 1:
            raise pyarrow.flight.FlightUnavailableError("starting")
        chunks = reader.read_all().column("chunk").to_pylist()
        self.uploads.append((descriptor.command, b"".join(chunks)))


@pytest.fixture
async def plane() -> AsyncIterator[_DataPlane]:
    served = _DataPlane()
    thread = threading.Thread(target=served.serve)
    thread.start()
    yield served
    served.shutdown()
    thread.join()


def _settings(port: int) -> config.Settings:
    stores = (f"127.0.0.1:{port}",)
    return config.Settings(discovery=config.Discovery(zeroconf=False, stores=stores))


async def _control(flight_port: int) -> rpc_server.Server:
    class Control(cards_pb2_grpc.CardStoreServicer):
        async def GetStoreStatus(self, request: Any, context: Any) -> cards_pb2.StoreStatus:
            return cards_pb2.StoreStatus(flight_address=f"127.0.0.1:{flight_port}")

    def add(server: Any) -> str:
        cards_pb2_grpc.add_CardStoreServicer_to_server(Control(), server)  # type: ignore[abstract]
        return "skillmesh.v1.CardStore"

    server = rpc_server.Server([add], "127.0.0.1:0")
    await server.start()
    return server


async def test_dataset_arrives_whole_when_the_store_was_away_at_first(plane: _DataPlane) -> None:
    control = await _control(plane.port)
    digest = await store.StoreConnection(_settings(control.port), 10.0).put("dataset", DATA)
    await control.stop()
    assert digest == datasets.digest(DATA)
    assert [data for _, data in plane.uploads] == [DATA]
    assert plane.attempts == 2


async def test_error_says_so_when_no_store_can_be_reached() -> None:
    control = await _control(1)
    await control.stop()
    with pytest.raises(errors.UnavailableError):
        await store.StoreConnection(_settings(control.port), 0.1).put("dataset", DATA)
