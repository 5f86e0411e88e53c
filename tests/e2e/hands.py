"""A test's hands on another host: run there, told what to do on stdin, answers on stdout.

`Hands` is the test's side of it. One JSON object a line either way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf import json_format

from shared import settings as config
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, inference_pb2, inference_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections

_SERVICES = {
    "store": (cards_pb2, cards_pb2_grpc.CardStoreStub),
    "node": (inference_pb2, inference_pb2_grpc.InferenceStub),
}
_DEADLINE_S = 60.0


class Hands:
    """One such process; see `reaching`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self._lock = process, asyncio.Lock()

    async def call(self, service: str, method: str, **request: Any) -> dict[str, Any]:
        """A call of this host's own `store` or `node`; fields in the spelling of JSON."""
        return await self._do(do="call", service=service, method=method, request=request)

    async def put(self, path: pathlib.Path) -> str:
        """Uploads a file to this host's store; returns its digest."""
        return str((await self._do(do="put", path=str(path)))["digest"])

    async def fetched(self, digest: str) -> str:
        """The SHA-256 of what the store sends for a digest."""
        return str((await self._do(do="fetch", digest=digest))["sha256"])

    async def log(self) -> list[dict[str, Any]]:
        """The lines of the store's revision log."""
        found: list[dict[str, Any]] = (await self._do(do="log"))["lines"]
        return found

    async def _do(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._lock:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


@contextlib.asynccontextmanager
async def reaching(
    before: Sequence[str], configuration: pathlib.Path, token: str
) -> AsyncIterator[Hands]:
    """Hands until left.

    Args:
        before: what makes a command run on the host.
        configuration: config.yaml of the host's services.
        token: shown to them.
    """
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", __name__, str(configuration)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        env=os.environ | {protections.TOKEN_VARIABLE: token},
    )
    try:
        yield Hands(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _done(settings: config.Settings, what: dict[str, Any]) -> dict[str, Any]:
    protection = protections.Protection.configured(settings)
    store = settings.card_store
    if what["do"] in ("put", "fetch"):
        connection = flight_client.LoRAFlightClient(store.flight_address, protection)
        try:
            if what["do"] == "put":
                return {"digest": connection.put("card", pathlib.Path(what["path"]).read_bytes())}
            return {"sha256": hashlib.sha256(connection.get(what["digest"])).hexdigest()}
        finally:
            connection.close()
    is_node = what.get("service") == "node"
    address = settings.inference.address if is_node else store.address
    async with client.channel(address, protection=protection) as channel:
        if what["do"] == "log":
            return {"lines": [line async for line in _log(cards_pb2_grpc.CardStoreStub(channel))]}
        messages, make_stub = _SERVICES[what["service"]]
        method = what["method"]
        request = json_format.ParseDict(what["request"], getattr(messages, f"{method}Request")())
        answer = await client.call(getattr(make_stub(channel), method), request, _DEADLINE_S)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)


async def _log(stub: Any) -> AsyncIterator[dict[str, Any]]:
    call = stub.Watch(cards_pb2.WatchRequest(), timeout=_DEADLINE_S)
    async for change in call:
        if change.kind == cards_pb2.HEARTBEAT:
            call.cancel()
            return
        yield {
            "kind": cards_pb2.ChangeKind.Name(change.kind),
            "digest": change.card.digest,
            "origin": change.card.origin,
        }


async def _serve(settings: config.Settings) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = await _done(settings, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(config.load(pathlib.Path(sys.argv[1]))))
