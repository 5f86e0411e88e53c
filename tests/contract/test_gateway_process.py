"""The gateway as a process: what it loads, and how it ends while an answer is under way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import openai
import pytest

from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import server as rpc_server
from tests.contract import addresses
from tests.contract.card_store_processes import Process

HANGING_S = 300.0


class Node(inference_pb2_grpc.InferenceServicer):
    """Says the second half of its answer when it is told to."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()

    async def GenerateStream(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        yield inference_pb2.GenerateChunk(text="It was ")
        await self.goes_on.wait()
        final = inference_pb2.GenerateResponse(answer="It was Ann.", finish_reason="stop")
        yield inference_pb2.GenerateChunk(text="Ann.", final=final)

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        return inference_pb2.NodeStatus(node_id="node", base_model="tiny", most_rows=8)


@contextlib.asynccontextmanager
async def serving(node: Node) -> AsyncIterator[str]:
    def add(server: grpc.aio.Server) -> str:
        inference_pb2_grpc.add_InferenceServicer_to_server(node, server)
        return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

    running = rpc_server.Server([add], "127.0.0.1:0")
    await running.start()
    try:
        yield f"127.0.0.1:{running.port}"
    finally:
        await running.stop()


def configured(folder: pathlib.Path, node: str, address: str) -> pathlib.Path:
    path = folder / "config.yaml"
    path.write_text(
        json.dumps(
            {
                "cluster": {"state_dir": str(folder)},
                "gateway": {"address": address, "drain_s": HANGING_S},
                "inference": {"address": node},
                "router": {"address": addresses.free_address()},
                "card_store": {"address": addresses.free_address()},
                "factory": {"address": addresses.free_address()},
                "telemetry": {"log_format": "json"},
            }
        )
    )
    return path


async def test_ends_when_its_last_answer_has_ended_and_has_loaded_no_torch(tmp_path):
    node = Node()
    async with asyncio.timeout(HANGING_S), serving(node) as address:
        config = configured(tmp_path, address, "127.0.0.1:0")
        gateway = Process("services.gateway.web", config)
        try:
            await asyncio.to_thread(gateway.until_listening)
            mapped = pathlib.Path(f"/proc/{gateway.pid}/maps").read_text()
            assert "libtorch" not in mapped
            url = f"http://127.0.0.1:{gateway.port}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
                stream = await client.chat.completions.create(
                    model="base", messages=[{"role": "user", "content": "Who?"}], stream=True
                )
                assert (await anext(stream)).choices[0].delta.content == "It was "
                ending = asyncio.create_task(asyncio.to_thread(gateway.end, signal.SIGTERM))
                with pytest.raises(openai.InternalServerError) as refused:
                    while True:
                        await client.models.retrieve("base")
                assert refused.value.status_code == 503
                assert not ending.done()
                node.goes_on.set()
                rest = [chunk.choices[0] async for chunk in stream]
            assert rest[0].delta.content == "Ann." and rest[-1].finish_reason == "stop"
            assert await ending == 0, "".join(gateway.log)
        finally:
            await asyncio.to_thread(gateway.end, signal.SIGKILL)


async def test_says_which_key_to_change_when_its_port_is_taken(tmp_path):
    async with serving(Node()) as address:
        gateway = Process("services.gateway.web", configured(tmp_path, address, address))
        code = await asyncio.to_thread(gateway.wait)
    assert code == 2
    assert f"gateway.address: can't listen on {address}" in "".join(gateway.log)
