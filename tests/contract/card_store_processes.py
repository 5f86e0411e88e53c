"""Starts the processes of a card store for real and uploads to them, rightly or wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.flight

from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2
from shared.rpc import client as rpc_client
from tests import fakes

CONTROL, DATA = "services.card_store", "services.card_store.data_plane"
LARGEST = 4 * 1024 * 1024


class Process:
    """One started process; its log tells when it listens, and on which port."""

    def __init__(
        self,
        module: str,
        config: pathlib.Path,
        runner: Sequence[str] = (),
        before: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Starts it.

        Args:
            module: of the service.
            config: its config.yaml.
            runner: a module, with arguments, that runs the process's module.
            before: a command, with arguments, that runs all of it.
            environment: of the process.
        """
        self._popen = subprocess.Popen(
            [*before, sys.executable, "-m", *runner, module, "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.log: list[str] = []
        self.port = 0
        self.started_at_s, self.listening_at_s = time.monotonic(), 0.0
        """On the monotonic clock."""
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def memory_bytes(self, field: str) -> int:
        """What the kernel counts: `VmRSS` now, `VmHWM` at the worst moment."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(field)

    def _read(self) -> None:
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self.log.append(line)
            if found := re.search(r'"port": (\d+)', line):
                self.port, self.listening_at_s = int(found[1]), time.monotonic()
                self._listens.set()
        self._listens.set()

    def until_listening(self) -> Process:
        assert self._listens.wait(180) and self.port, "".join(self.log)
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        if self._popen.poll() is None:
            self._popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self._popen.wait(180)
        self._reader.join()
        assert self._popen.stderr is not None
        self._popen.stderr.close()
        return code


class Store:
    """A card store of two processes in a folder of its own."""

    def __init__(self, root: pathlib.Path, runner: Sequence[str] = (), **sections: object) -> None:
        self.root, self._runner = root, runner
        self.config = self.write_config(root)
        if sections:
            content = json.loads(self.config.read_text())
            self.config.write_text(json.dumps(content | sections))
        self.data = Process(DATA, self.config, runner)
        self.control = Process(CONTROL, self.config, runner)
        self.control.until_listening()
        self.data.until_listening()

    def write_config(self, root: pathlib.Path) -> pathlib.Path:
        return write_config(root)

    @property
    def flight_address(self) -> str:
        return f"127.0.0.1:{self.data.port}"

    @property
    def control_address(self) -> str:
        return f"127.0.0.1:{self.control.port}"

    def restart_control(self) -> None:
        self.control = Process(CONTROL, self.config, self._runner).until_listening()

    def restart_data(self) -> None:
        self.data = Process(DATA, self.config, self._runner).until_listening()

    def put(self, data: bytes, kind: flight_client.Kind = "card") -> str:
        client = flight_client.LoRAFlightClient(self.flight_address)
        try:
            return client.put(kind, data)
        finally:
            client.close()

    def get(self, digest: str) -> bytes:
        client = flight_client.LoRAFlightClient(self.flight_address)
        try:
            return client.get(digest)
        finally:
            client.close()

    async def commit(self, digest: str, kind: str = "card") -> cards_pb2.CommitResponse:
        async with self.stub() as stub:
            return await commit(stub, digest, kind)

    async def publish(self, data: bytes, kind: flight_client.Kind = "card") -> bool:
        """Uploads and commits; whether it is new."""
        digest = await asyncio.to_thread(self.put, data, kind)
        return (await self.commit(digest, kind)).created

    async def listed(self) -> list[str]:
        """The digests of all cards."""
        async with self.stub() as stub:
            request = cards_pb2.ListCardsRequest(all_versions=True)
            response = await rpc_client.call(stub.ListCards, request)
        return [card.digest for card in response.cards]

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator[cards_pb2_grpc.CardStoreAsyncStub]:
        async with rpc_client.channel(self.control_address) as channel:
            yield cards_pb2_grpc.CardStoreStub(channel)

    def staged(self) -> list[str]:
        return [path.name for path in (self.root / "card_store" / "staging").iterdir()]

    def stop(self) -> None:
        assert [self.control.end(), self.data.end()] == [0, 0], (self.control.log, self.data.log)


def write_config(root: pathlib.Path, **card_store: object) -> pathlib.Path:
    root.mkdir(parents=True, exist_ok=True)
    fakes.keyring(root)
    path = root / "config.yaml"
    section = {
        "address": "127.0.0.1:0",
        "flight_address": "127.0.0.1:0",
        "largest_upload_bytes": LARGEST,
    }
    content = {
        "cluster": {"state_dir": str(root)},
        "card_store": section | card_store,
        "discovery": {"zeroconf": False},
        "security": {"require_signatures": False},
        "telemetry": {"log_format": "json"},
    }
    path.write_text(json.dumps(content))
    return path


def announce(data: bytes, **changed: object) -> pyarrow.flight.FlightDescriptor:
    command: dict[str, object] = {
        "kind": "card",
        "digest": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "batches": 1,
    }
    return pyarrow.flight.FlightDescriptor.for_command(json.dumps(command | changed))


def raw_batch(data: bytes) -> pa.RecordBatch:
    return pa.record_batch([pa.array([data], pa.large_binary())], schema=flight_client.RAW_SCHEMA)


def send(
    client: pyarrow.flight.FlightClient,
    descriptor: pyarrow.flight.FlightDescriptor,
    batch: pa.RecordBatch,
    compression: str | None = None,
) -> None:
    options = pyarrow.flight.FlightCallOptions(
        timeout=30, write_options=pa.ipc.IpcWriteOptions(compression=compression)
    )
    writer, _ = client.do_put(descriptor, batch.schema, options)
    with writer:
        writer.write_batch(batch)
        writer.done_writing()


def card_bytes(name: str, version: str = "1.0.0", seed: int = 0, features: int = 8) -> bytes:
    return formats.LoRAFormat.to_bytes(fakes.tiny_card(name, version, seed, features=features))


def commit_request(digest: str, kind: str = "card") -> cards_pb2.CommitRequest:
    return cards_pb2.CommitRequest(
        idempotency_key=digest, ticket=types_pb2.Ticket(kind=kind, digest=digest)
    )


async def commit(stub: object, digest: str, kind: str = "card") -> cards_pb2.CommitResponse:
    return await rpc_client.call(stub.Commit, commit_request(digest, kind))  # type: ignore[attr-defined]
