"""Whatever is sent, the gateway answers in OpenAI's shape and goes on serving."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import settings as config
from tests.contract import addresses, gateways

CHAT: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Who?"}]}
SYSTEM = {"role": "system", "content": "Be brief."}
TEXT: dict[str, Any] = {"model": "auto", "prompt": "Who"}
EMBED: dict[str, Any] = {"model": "all-MiniLM-L6-v2", "input": "Who?"}
TELL: dict[str, Any] = {"question": "Who?", "rating": "wrong", "correction": "Ann."}
PATH, COMPLETE = "/v1/chat/completions", "/v1/completions"
HANGING_S = 180.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def settings() -> config.Settings:
    return config.Settings(
        gateway=config.Gateway(limits={"body_mib": 1}),
        router=config.Router(address=addresses.free_address()),
        card_store=config.CardStore(address=addresses.free_address()),
        factory=config.Factory(address=addresses.free_address()),
    )


@pytest.fixture
async def gateway(settings) -> AsyncIterator[gateways.Gateway]:
    fleet = gateways.FakeFleet()
    async with gateways.serving(settings, fleet) as running:
        yield running
        status, _, told = await running.send("POST", PATH, CHAT)
        assert status == 200 and told["choices"], "it no longer serves"
        # Nothing but that last question ever reached a node.
        assert len(fleet.asked) == 1


def said(found: tuple[int, dict[str, str], Any], status: int = 400) -> dict[str, Any]:
    """The error of an answer, which has OpenAI's shape."""
    assert found[0] == status, found
    assert found[1]["content-type"] == "application/json"
    assert set(found[2]) == {"error"}
    error = found[2]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    return error


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": 7}, "model", "invalid_type"),
        ({"model": None}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Who?"}, "messages", "invalid_type"),
        ({"messages": [7]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages", "invalid_value"),
        ({"messages": [SYSTEM, {"role": "user", "content": []}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "invalid_value"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ]
            },
            "messages[0].content",
            "unsupported_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content",
            "unsupported_value",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "colour": "red"}]},
            "messages[0].colour",
            "unknown_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": "\ud800"}]},
            "messages[0].content",
            "invalid_value",
        ),
        ({"temperature": "0.5"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": float("nan")}, "temperature", "invalid_value"),
        ({"temperature": float("inf")}, "temperature", "invalid_value"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": 2**40}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"seed": "one"}, "seed", "invalid_type"),
        ({"stop": 7}, "stop", "invalid_type"),
        ({"stop": ["a", 7]}, "stop[1]", "invalid_type"),
        ({"stop": [""]}, "stop[0]", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"n": 2}, "n", "unsupported_value"),
        ({"n": "many"}, "n", "unsupported_value"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_value"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "unsupported_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"logprobs": 2}, "logprobs", "invalid_type"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_value"),
        ({"functions": [{}]}, "functions", "unsupported_value"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        ({"max_cards": 5}, "max_cards", "invalid_value"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
    ],
)
async def test_names_the_parameter_that_is_wrong(gateway, change, param, code):
    error = said(await gateway.send("POST", PATH, CHAT | change))
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert param in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        (COMPLETE, {"model": "auto"}, "prompt", "missing_required_parameter"),
        (COMPLETE, TEXT | {"prompt": ""}, "prompt", "invalid_value"),
        (COMPLETE, TEXT | {"prompt": "", "suffix": ""}, "prompt", "invalid_value"),
        (COMPLETE, TEXT | {"prompt": ["a", "b"]}, "prompt", "unsupported_value"),
        (COMPLETE, TEXT | {"prompt": [1, 2]}, "prompt", "unsupported_value"),
        (COMPLETE, TEXT | {"echo": True}, "echo", "unsupported_value"),
        (COMPLETE, TEXT | {"best_of": 3}, "best_of", "unsupported_value"),
        (COMPLETE, TEXT | {"logprobs": True}, "logprobs", "invalid_type"),
        (COMPLETE, TEXT | {"messages": []}, "messages", "unknown_parameter"),
        ("/v1/embeddings", EMBED | {"input": [1, 2]}, "input", "unsupported_value"),
        ("/v1/embeddings", EMBED | {"input": [[1]]}, "input", "unsupported_value"),
        ("/v1/embeddings", EMBED | {"input": []}, "input", "invalid_value"),
        ("/v1/embeddings", EMBED | {"input": ""}, "input[0]", "invalid_value"),
        ("/v1/embeddings", EMBED | {"input": ["a"] * 2049}, "input", "invalid_value"),
        ("/v1/embeddings", EMBED | {"dimensions": 64}, "dimensions", "unsupported_value"),
        ("/v1/embeddings", EMBED | {"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        (
            "/v1/load_lora_adapter",
            {"lora_name": "a", "lora_path": "/etc"},
            "lora_path",
            "unsupported_value",
        ),
        ("/v1/load_lora_adapter", {}, "lora_name", "missing_required_parameter"),
        ("/v1/load_lora_adapter", {"lora_name": "auto"}, "lora_name", "invalid_value"),
        ("/v1/unload_lora_adapter", {"lora_name": "base"}, "lora_name", "invalid_value"),
        ("/v1/feedback", TELL | {"rating": "great"}, "rating", "invalid_value"),
        ("/v1/feedback", TELL | {"question": ""}, "question", "invalid_value"),
        ("/v1/feedback", TELL | {"rating": "right"}, "correction", "invalid_value"),
        ("/v1/feedback", TELL | {"correction": "", "agent": "tim"}, "agent", "invalid_value"),
    ],
)
async def test_names_the_parameter_that_is_wrong_at_other_endpoints(
    gateway, path, body, param, code
):
    error = said(await gateway.send("POST", path, body))
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\xfa",
        b'{"model": "\xff"}',
        b"[" * 100_000,
        b'{"max_tokens": ' + b"9" * 10_000 + b"}",
    ],
)
async def test_says_so_when_a_body_is_no_json_object(gateway, body):
    error = said(await gateway.send("POST", PATH, body))
    assert "JSON" in error["message"]
    assert (error["param"], error["code"]) == (None, "invalid_json")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_says_so_when_a_body_is_not_called_json(gateway, kind):
    found = await gateway.send("POST", PATH, json.dumps(CHAT).encode(), content_type=kind)
    assert "content-type: application/json" in said(found)["message"]


async def test_refuses_a_body_that_is_too_large_by_its_declared_size(gateway):
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {2**40}\r\n\r\n"
    )
    status, headers, content = await gateway.raw(head.encode())
    error = said((status, headers, json.loads(content)), 413)
    assert error["code"] == "request_too_large" and "gateway.limits.body_mib" in error["message"]


async def test_refuses_a_body_that_is_too_large_when_it_does_not_say_its_size(gateway):
    part = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    request = f"{head}transfer-encoding: chunked\r\n\r\n".encode() + part + part + b"0\r\n\r\n"
    status, headers, content = await gateway.raw(request)
    assert said((status, headers, json.loads(content)), 413)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", PATH, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/healthz", 405, "method_not_allowed"),
    ],
)
async def test_says_so_when_there_is_no_such_endpoint(gateway, method, path, status, code):
    error = said(await gateway.send(method, path), status)
    assert error["code"] == code and path in error["message"]


async def test_half_a_request_holds_nothing_when_its_client_leaves(gateway):
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.running.port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    writer.write(head.encode() + b'{"model"')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await gateway.running.drain.until_idle(HANGING_S)
    gateway.running.drain.is_draining = False
