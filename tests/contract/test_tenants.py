"""Whose cards answer whom, on a node that serves those of several tenants."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.inference import server
from shared import discovery, errors
from shared import settings as config
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import client
from shared.security import callers
from shared.security import protection as protections
from tests import tiny_model
from tests.contract import inference_nodes as nodes
from tests.contract.card_store_processes import Store

pytestmark = pytest.mark.usefixtures("patient")

TOKENS = (
    ("operator", "operator", ()),
    ("of-a", "user", ("a",)),
    ("of-b", "user", ("b",)),
    ("of-none", "user", ()),
)


@contextlib.asynccontextmanager
async def guarded(folder: pathlib.Path, store: Store, router: str) -> AsyncIterator[int]:
    """A node that looks at tokens; its port."""
    tokens = folder / "tokens.json"
    tokens.write_text(
        json.dumps(
            [
                {"name": name, "sha256": callers.hash_of(name), "role": role, "tenants": tenants}
                for name, role, tenants in TOKENS
            ]
        )
    )

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress(nodes.control(store), nodes.control(store))]

    settings = nodes.settings_for(folder, router).model_copy(
        update={"security": config.Security(tokens=tokens)}
    )
    async with server.running(settings, lambda _: tiny_model.tiny_base(0), find) as port:
        yield port


@contextlib.asynccontextmanager
async def calling(port: int, token: str) -> AsyncIterator[Any]:
    shown = protections.Protection(token=token)
    async with client.channel(f"127.0.0.1:{port}", protection=shown) as channel:
        yield inference_pb2_grpc.InferenceStub(channel)


async def test_a_card_of_a_tenant_answers_nobody_else_by_whatever_way_it_is_asked(tmp_path, store):
    base = tiny_model.tiny_base(0)
    router = nodes.FakeRouter()
    async with nodes.router_server(router) as address, guarded(tmp_path, store, address) as port:
        key = await nodes.publish(store, tiny_model.card_for(base, "trade"), tenants=["a"])
        router.choose(key)
        async with calling(port, "operator") as stub:
            status = inference_pb2.GetNodeStatusRequest()
            while key not in (await client.call(stub.GetNodeStatus, status)).served:
                pass
        for token, sees in (
            ("operator", True),
            ("of-a", True),
            ("of-b", False),
            ("of-none", False),
        ):
            async with calling(port, token) as stub:
                told = await client.call(stub.GetNodeStatus, status)
                assert (key in told.served) is sees, token
                taken_in = [swap.card for swap in told.swaps]
                assert (key in taken_in) is sees, token
                assert sees or key not in (*told.resident, *told.pinned), token
                routed = inference_pb2.GenerateRequest(query=nodes.QUERY)
                answer = await client.call(stub.Generate, routed, nodes.HANGING_S)
                assert answer.card == (key if sees else ""), token
                for card in ("trade", key):
                    named = inference_pb2.GenerateRequest(query=nodes.QUERY, model=card)
                    coded = inference_pb2.CompleteRequest(prefix="x", model=card)
                    for method, request in ((stub.Generate, named), (stub.Complete, coded)):
                        if sees:
                            found = await client.call(method, request, nodes.HANGING_S)
                            assert found.card == key
                        else:
                            with pytest.raises(errors.NotFoundError):
                                await client.call(method, request, nodes.HANGING_S)
