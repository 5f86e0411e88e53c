"""A teacher on loopback that speaks OpenAI's and Anthropic's wire formats and follows a script."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

_REASONS = {200: "OK"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One answer of the script."""

    text: str = ""
    status: int = 200
    message: str = "as the test wants it"
    refusal: str = ""
    truncated: bool = False
    hangs: bool = False


@dataclasses.dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class TeacherServer:
    """Answers each request with the next step; the last one is repeated."""

    def __init__(self, *script: Step) -> None:
        self._script = list(script)
        self.seen: list[Seen] = []
        self._released = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> TeacherServer:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._released.set()
        self._server.close()
        await self._server.wait_closed()

    @property
    def root(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        path = request_line.split()[1]
        self.seen.append(Seen(path, headers, body))
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if step.hangs:
            await self._released.wait()
        else:
            writer.write(_response(path, step))
            await writer.drain()
        writer.close()


def _response(path: str, step: Step) -> bytes:
    if step.status != 200:
        error = {"type": "scripted", "message": step.message, "code": "scripted"}
        body: dict[str, Any] = {"type": "error", "error": error}
    elif path.endswith("/chat/completions"):
        body = _chat_completion(step)
    else:
        body = _message(step)
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {step.status} {_REASONS.get(step.status, 'Scripted')}\r\n"
        "content-type: application/json\r\n"
        # The SDKs wait this long before they try again.
        "retry-after-ms: 1\r\n"
        f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + data


def _chat_completion(step: Step) -> dict[str, Any]:
    message = {"role": "assistant", "content": step.text, "refusal": step.refusal or None}
    reason = "length" if step.truncated else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": reason, "message": message, "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _message(step: Step) -> dict[str, Any]:
    reason = "refusal" if step.refusal else "max_tokens" if step.truncated else "end_turn"
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": step.refusal or step.text}],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
