"""A teacher on loopback that speaks OpenAI's and Anthropic's wire formats and follows a script."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
import uuid
from typing import Any

_REASONS = {200: "OK"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One answer of the script."""

    text: str = ""
    status: int = 200
    message: str = "as the test wants it"
    code: str = "scripted"
    """The type and code of an error, as its body names them."""
    headers: tuple[tuple[str, str], ...] = (("retry-after-ms", "1"),)
    refusal: str = ""
    truncated: bool = False
    usage: tuple[int, int] | None = (1, 1)
    """Tokens of input and output; nothing for a server that does not count."""
    body: str | None = None
    """Sent as it is, instead of what the protocol wants."""
    content_type: str = "application/json"
    hangs: bool = False
    trickles: bool = False
    """Begins its answer and never ends it, one space at a time."""
    resets: bool = False
    """Takes the request and breaks the connection."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at_s: float
    """Monotonic."""


class TeacherServer:
    """Answers each request with the next step; the last one is repeated."""

    def __init__(self, *script: Step) -> None:
        self._script = list(script)
        self.seen: list[Seen] = []
        # Another test's client may still look for a server that had this port before.
        self._prefix = f"/{uuid.uuid4().hex}"
        self._released = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._answering: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> TeacherServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._released.set()
        self._server.close()
        await self._server.wait_closed()
        # Else the loop may be closed under an answer that is still being written.
        await asyncio.gather(*self._answering)

    async def until_asked(self, times: int) -> None:
        """Waits until so many requests have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.seen) >= times)

    @property
    def root(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._prefix}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._handle(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            await self._answer(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        sent = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(sent) if sent else {}
        path = request_line.split()[1]
        if not path.startswith(self._prefix):
            writer.write(_response(path, Step(status=404, message=f"nothing is at {path}")))
            return
        path = path.removeprefix(self._prefix)
        async with self._arrived:
            self.seen.append(Seen(path, headers, body, time.monotonic()))
            self._arrived.notify_all()
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if step.hangs:
            await self._released.wait()
        elif step.trickles:
            await self._trickle(writer)
        elif step.resets:
            writer.transport.abort()
        else:
            writer.write(_response(path, step))
            await writer.drain()

    async def _trickle(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while not writer.is_closing() and not self._released.is_set():
            writer.write(b" ")
            await writer.drain()
            # Often enough that no wait for a single byte is ever long.
            await asyncio.sleep(0.01)


def _response(path: str, step: Step) -> bytes:
    if step.status != 200:
        error = {"type": step.code, "message": step.message, "code": step.code}
        body: dict[str, Any] = {"type": "error", "error": error}
    elif path.endswith("/chat/completions"):
        body = _chat_completion(step)
    else:
        body = _message(step)
    data = (json.dumps(body) if step.body is None else step.body).encode()
    head = (
        f"HTTP/1.1 {step.status} {_REASONS.get(step.status, 'Scripted')}\r\n"
        f"content-type: {step.content_type}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in step.headers)
        + f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + data


def _chat_completion(step: Step) -> dict[str, Any]:
    message = {"role": "assistant", "content": step.text, "refusal": step.refusal or None}
    reason = "length" if step.truncated else "stop"
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": reason, "message": message, "logprobs": None}],
    }
    if step.usage is not None:
        tokens_in, tokens_out = step.usage
        body["usage"] = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }
    return body


def _message(step: Step) -> dict[str, Any]:
    reason = "refusal" if step.refusal else "max_tokens" if step.truncated else "end_turn"
    body: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": step.refusal or step.text}],
        "stop_reason": reason,
        "stop_sequence": None,
    }
    if step.usage is not None:
        tokens_in, tokens_out = step.usage
        body["usage"] = {"input_tokens": tokens_in, "output_tokens": tokens_out}
    return body
