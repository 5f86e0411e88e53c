"""A hierarchy's service within the test's process, and what a node does with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from services.hierarchy import port, server
from services.inference.agents import hierarchy_client
from shared import settings as config
from shared.flight import client as flight_client
from shared.hierarchy import messages, wire
from shared.pb import hierarchy_pb2, hierarchy_pb2_grpc
from shared.rpc import client as rpc_client
from shared.rpc import hierarchy_messages
from shared.security import callers
from shared.security import protection as protections
from tests import fake_layers

BASE = "f" * 64
TOKENS = {
    "north": ("node", ["north"]),
    "south": ("node", ["south"]),
    "one": ("node", []),
    "two": ("node", []),
    "operator": ("operator", ["*"]),
    "peer": ("peer", []),
}
"""Name to role and tenants; the token of NAME is `token-of-NAME`."""


def settings(
    root: pathlib.Path,
    tokens: bool = False,
    control: str = "127.0.0.1:0",
    metrics: str = "127.0.0.1:0",
    **changed: Any,
) -> config.Settings:
    """With small layers, free ports, and ticks that only come when they are asked for."""
    security = {}
    if tokens:
        path = root / "tokens.json"
        entries = [
            {
                "name": name,
                "sha256": callers.hash_of(f"token-of-{name}"),
                "role": role,
                "tenants": tenants,
            }
            for name, (role, tenants) in TOKENS.items()
        ]
        root.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entries))
        security = {"tokens": path}
    hierarchy = {
        "enabled": True,
        "address": control,
        "flight_address": "127.0.0.1:0",
        "tick_s": 3600.0,
        "layers": {
            level.value: {"rank": spec.rank, "inertia": spec.inertia}
            for level, spec in fake_layers.SPECS.items()
        },
    }
    content = {
        "cluster": {"state_dir": root / "state"},
        "hierarchy": hierarchy | changed,
        "security": security,
        "telemetry": {"metrics": {"enabled": True, "hierarchy": metrics}},
    }
    return config.Settings(**content)  # type: ignore[arg-type]


class House:
    """A service that runs, and ways to call it."""

    def __init__(self, listening: server.Listening) -> None:
        self.listening = listening
        self.address = f"127.0.0.1:{listening.port}"
        self._flight_address = f"127.0.0.1:{listening.flight_port}"

    @classmethod
    async def located(cls, address: str) -> House:
        """One that runs elsewhere; a restart may have moved its data plane."""
        house = cls(server.Listening(int(address.rpartition(":")[2]), 0, 0))
        request = hierarchy_pb2.GetHierarchyStatusRequest()
        house._flight_address = (await house.call("GetHierarchyStatus", request)).flight_address
        return house

    def protection(self, who: str = "") -> protections.Protection:
        return protections.Protection(token=f"token-of-{who}" if who else "")

    async def call(self, method: str, request: object, who: str = "") -> Any:
        async with rpc_client.channel(self.address, protection=self.protection(who)) as channel:
            stub = hierarchy_pb2_grpc.HierarchyStub(channel)
            return await rpc_client.call(getattr(stub, method), request, 30)

    async def join(self, agent: str, who: str = "", **changed: Any) -> Any:
        about = {"base_fingerprint": BASE, "shapes": fake_layers.SHAPES} | changed
        request = hierarchy_messages.join_request(agent, "node-1", **about)
        return await self.call("Join", request, who)

    async def put(self, submission: messages.Submission, who: str = "", **about: str | int) -> None:
        """As a node puts it, or with another command."""
        command = {"agent": submission.agent, "sequence": submission.sequence} | about
        await self.put_bytes(wire.submission_to_bytes(submission), who, **command)

    async def put_bytes(self, data: bytes, who: str = "", **command: str | int) -> None:
        with self.flight(who) as client:
            await asyncio.to_thread(client.put, "submission", data, **command)

    async def get(self, digest: str, who: str = "") -> bytes:
        with self.flight(who) as client:
            return await asyncio.to_thread(client.get, digest)

    @contextlib.contextmanager
    def flight(self, who: str = "") -> Any:
        client = flight_client.LoRAFlightClient(self._flight_address, self.protection(who))
        try:
            yield client
        finally:
            client.close()


@contextlib.asynccontextmanager
async def running(
    chosen: config.Settings, make: Callable[[wire.Frame], port.Layers] = fake_layers.FakeLayers
) -> AsyncIterator[House]:
    async with server.running(chosen, make) as listening:
        yield House(listening)


class Listener:
    """Keeps what a client hears."""

    def __init__(self) -> None:
        self.snapshots: list[messages.Snapshot] = []
        self.settlements: list[messages.Settlement] = []
        self.news = asyncio.Event()

    async def take_snapshot(self, snapshot: messages.Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.news.set()

    async def take_settlement(self, settlement: messages.Settlement) -> None:
        self.settlements.append(settlement)
        self.news.set()

    async def until(self, condition: Callable[[], bool], limit_s: float = 60) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():
                self.news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.news.wait()

    @property
    def settled(self) -> list[tuple[str, int]]:
        return [(one.agent, one.sequence) for one in self.settlements]


@contextlib.asynccontextmanager
async def node(
    address: str,
    folder: pathlib.Path,
    listener: Listener,
    frame: wire.Frame = fake_layers.FRAME,
    most_waiting_bytes: int = 2**20,
    name: str = "node-1",
    **changed: Any,
) -> AsyncIterator[hierarchy_client.HierarchyClient]:
    """A node's client, from its start to its end."""
    client = hierarchy_client.HierarchyClient(
        address, name, BASE, frame, folder, listener, most_waiting_bytes, **changed
    )
    client.start()
    try:
        yield client
    finally:
        await client.stop()
