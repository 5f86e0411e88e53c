"""Server-sent events: one a piece, sent as it comes; closed with the client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette import responses

from services.gateway.openai_api import refusals

_DONE = b"data: [DONE]\n\n"
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""JSON takes them as they are, and whoever reads lines of Unicode cuts an event in two there."""
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # Asks proxies such as nginx not to gather what should be read at once.
    "x-accel-buffering": "no",
}


class EventStream(responses.Response):
    """An answer in pieces.

    All ends in the task that sends, whether they were read to their end, failed, or the client went
    away and the task is cancelled: a node's slot is free at once.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[dict[str, Any], None],
        headers: Mapping[str, str],
        held: contextlib.AsyncExitStack,
    ) -> None:
        """Takes the pieces, each an object, and what they hold until the end."""
        super().__init__(None, 200, headers={**headers, **_HEADERS})
        del self.headers["content-length"]
        self._chunks, self._held = chunks, held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends them."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        async with self._held, contextlib.aclosing(self._chunks):
            await send(start)
            try:
                async for chunk in self._chunks:
                    await send(_body(event(chunk)))
                await send(_body(_DONE, more=False))
            except Exception as error:
                # The status has left already: the error is the last event, as OpenAI sends it.
                await send(_body(event(refusals.of(error).body()), more=False))


def event(data: Mapping[str, Any]) -> bytes:
    """One event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if not text.isascii():
        text = text.translate(_LINE_ENDS)
    return f"data: {text}\n\n".encode(errors="replace")


def _body(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
