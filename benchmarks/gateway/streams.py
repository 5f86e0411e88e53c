"""Streamed answers of any server that speaks OpenAI's protocol, read without a client library.

What a library costs would weigh on the cores that the servers under measurement need.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from typing import Any

_PATH = "/v1/chat/completions"
_DONE = "[DONE]"
_MOST_TOLD = 1000
"""Bytes of a refusal."""


class StreamError(Exception):
    """An answer that did not come, or did not come to its end."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """One answer, and when it came."""

    text: str
    first_s: float
    """To the first word."""
    total_s: float
    """To the last."""
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The field `skillmesh`; empty from other servers."""


def body(model: str, question: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    """A request for an answer of the likeliest tokens."""
    messages = [{"role": "user", "content": question}]
    asked = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
    return asked | more


async def hear(address: str, asked: dict[str, Any], limit_s: float) -> Heard:
    """Asks for a stream over a connection of its own, and reads it to its end.

    Args:
        address: `host:port`.
        asked: the body but for `stream`.
        limit_s: for everything.

    Raises:
        StreamError: another status, an error as an event, or no end.
        OSError: the connection broke, or took too long (TimeoutError).
    """
    began_s = time.perf_counter()
    first_s, ended = 0.0, False
    text: list[str] = []
    extras: dict[str, Any] = {}
    async with asyncio.timeout(limit_s):
        reader, writer = await _sent(address, asked)
        try:
            async for data in _events(reader):
                if data == _DONE:
                    break
                event = json.loads(data)
                if "error" in event:
                    raise StreamError(f"an error after {len(text)} pieces: {event['error']}")
                extras = event.get("skillmesh") or extras
                for choice in event["choices"]:
                    ended = ended or choice.get("finish_reason") is not None
                    if piece := choice["delta"].get("content"):
                        first_s = first_s or time.perf_counter() - began_s
                        text.append(piece)
        finally:
            writer.close()
    if not ended:
        raise StreamError(f"no end after {len(text)} pieces")
    total_s = time.perf_counter() - began_s
    return Heard("".join(text), first_s or total_s, total_s, extras)


async def _sent(
    address: str, asked: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    data = json.dumps(asked | {"stream": True}).encode()
    head = (
        f"POST {_PATH} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + data)
    return reader, writer


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """The data of each server-sent event of an answer in chunks (RFC 9112, section 7.1)."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if head.split()[1] != "200":
            told = (await reader.read(_MOST_TOLD)).decode(errors="replace")
            raise StreamError(f"status {head.split()[1]}: {told}")
        if "transfer-encoding: chunked" not in head:
            raise StreamError(f"no answer in chunks: {head}")
        left = b""
        while size := int(await reader.readline() or b"0", 16):
            left += await reader.readexactly(size)
            await reader.readexactly(2)
            *whole, left = left.split(b"\n\n")
            for event in whole:
                if event.startswith(b"data: "):
                    yield event[6:].decode()
    except asyncio.IncompleteReadError as error:
        raise StreamError("the connection ended within the answer") from error
