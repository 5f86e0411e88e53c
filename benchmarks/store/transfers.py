"""How fast a card travels by Flight, beside a raw TCP copy and an HTTP download of the same bytes.

Every sender is a process of its own, every receiver this one. The raw copy sends from a memory map
and receives into memory that is there already; it checks nothing, just as a plain Flight client
that reads the stream. `LoRAFlightClient` checks the digest and stands beside a copy that does, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import mmap
import multiprocessing
import pathlib
import socket
import statistics
import tempfile
import urllib.request
from typing import Any

import pyarrow.flight

from benchmarks import results
from benchmarks.engine import timing
from benchmarks.store import cards, processes
from shared.flight import client as flight_client
from shared.rpc import client

_SIZES_MB = (1, 10, 100)
_ROUNDS = {1: 40, 10: 20, 100: 6}
_NAMED = "doget_10mb_of_tcp"


def measure() -> list[results.Row]:
    """DoGet and DoPut of each size."""
    rows = []
    with tempfile.TemporaryDirectory() as name, processes.store(pathlib.Path(name)) as store:
        for size_mb in _SIZES_MB:
            rows += _one_size(store, pathlib.Path(name), size_mb)
    return rows


def _one_size(store: processes.Store, folder: pathlib.Path, size_mb: int) -> list[results.Row]:
    data = cards.of_size(f"big-{size_mb}", size_mb * 10**6)
    path = folder / f"{size_mb}.bytes"
    path.write_bytes(data)
    [card] = cards.upload(store.flight_address, [data])
    asyncio.run(_committed(store.address, card))
    connection = flight_client.LoRAFlightClient(store.flight_address)
    plain = pyarrow.flight.FlightClient(f"grpc://{store.flight_address}")
    ticket = pyarrow.flight.Ticket(json.dumps({"digest": card.digest, "raw": True}))
    puts = iter(_variants(data, _ROUNDS[size_mb] + 1))
    with _Server(_serve_tcp, path) as tcp, _Server(_serve_http, path) as web:
        target = bytearray(len(data))
        taken = timing.in_turn(
            _ROUNDS[size_mb],
            lambda: _received(plain, ticket),
            lambda: connection.get(card.digest),
            lambda: _copy(tcp.port, target),
            lambda: hashlib.sha256(_copy(tcp.port, target)),
            lambda: _download(web.port),
            lambda: connection.put("card", next(puts)),
        )
    connection.close()
    received, got, copied, checked, downloaded, put = taken

    def ratio(peer: list[float], mine: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(peer, mine, strict=True))

    def rate(times: list[float]) -> float:
        return len(data) / 1000 / statistics.median(times)

    share = ratio(copied, received)
    return [
        results.Row(
            f"doget_{size_mb}mb_of_tcp",
            share,
            "of a raw TCP copy",
            least=0.5 if f"doget_{size_mb}mb_of_tcp" == _NAMED else None,
            peer="raw TCP copy",
            peer_value=1.0,
            ratio=share,
            note=f"{rate(received):,.0f} and {rate(copied):,.0f} MB/s, neither checked",
        ),
        results.Row(
            f"get_checked_{size_mb}mb_of_tcp",
            ratio(checked, got),
            "of a copy with SHA-256",
            peer="raw TCP copy, then SHA-256",
            peer_value=1.0,
            ratio=ratio(checked, got),
            note=f"{rate(got):,.0f} and {rate(checked):,.0f} MB/s",
        ),
        results.Row(
            f"doget_{size_mb}mb_mb_s",
            rate(received),
            "MB/s",
            peer="HTTP download",
            peer_value=rate(downloaded),
            ratio=ratio(downloaded, received),
        ),
        results.Row(
            f"doput_{size_mb}mb_mb_s",
            rate(put),
            "MB/s",
            peer="raw TCP copy",
            peer_value=rate(copied),
            ratio=ratio(copied, put),
            note="checked and on the disk",
        ),
    ]


def _variants(data: bytes, count: int) -> list[bytes]:
    """The same upload with other last bytes: what is there already would not be written again."""
    return [data[:-8] + number.to_bytes(8, "big") for number in range(count)]


async def _committed(address: str, card: cards.Uploaded) -> None:
    async with client.channel(address) as channel:
        await cards.commit(channel, card)


def _received(connection: pyarrow.flight.FlightClient, ticket: pyarrow.flight.Ticket) -> int:
    return sum(chunk.data.nbytes for chunk in connection.do_get(ticket))


def _copy(port: int, target: bytearray) -> bytearray:
    view, received = memoryview(target), 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while received < len(target):
            count = connection.recv_into(view[received:])
            if not count:
                raise RuntimeError("the copy broke off")
            received += count
    return target


def _download(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        body: bytes = response.read()
    return body


class _Server:
    """A sender in a process of its own."""

    def __init__(self, serve: Any, path: pathlib.Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(path, theirs), daemon=True)
        self._process.start()
        self.port: int = self._mine.recv()

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve_tcp(path: pathlib.Path, pipe: Any) -> None:
    with path.open("rb") as file, socket.create_server(("127.0.0.1", 0)) as server:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        pipe.send(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(mapped)


def _serve_http(path: pathlib.Path, pipe: Any) -> None:
    body = path.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()
