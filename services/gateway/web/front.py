"""What every request of the API passes before its endpoint: id, key, size, a client that stays.

Plain ASGI, so that nothing between an endpoint and the socket buffers. The body is read as a whole,
up to a limit, before anything looks at it; from then on the client can only go away, and when it
does, whatever works for it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from services.gateway.openai_api import keys, refusals
from services.gateway.web import draining
from shared.security import callers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIX = "/v1/"
_MIB = 1024 * 1024
_MOST_READ = 8
"""Times as much as a body may have; of one that is larger still the connection is cut."""
_REQUEST_ID = b"x-request-id"


class Front:
    """ASGI middleware of the paths under `/v1/`; others pass."""

    def __init__(
        self,
        app: App,
        admitted: callers.Callers,
        drain: draining.Drain,
        body_mib: float,
    ) -> None:
        """Takes what is behind it, who may ask, and how large a body may be."""
        self._app, self._admitted, self._drain = app, admitted, drain
        self._most_bytes = int(body_mib * _MIB)
        self._body_mib = body_mib

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection's request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        sender = _Sender(send, uuid.uuid4().hex)
        with structlog.contextvars.bound_contextvars(request_id=sender.request_id):
            try:
                with self._drain.under_way():
                    await self._handle(scope, receive, sender)
            except Exception as error:
                if sender.started:
                    raise
                await refusals.of(error).response()(scope, receive, sender)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        keys.keep(scope, keys.identify(self._admitted, headers.get(b"authorization", "")))
        declared = headers.get(b"content-length", "0")
        body = await self._body(receive, int(declared) if declared.isdecimal() else 0)
        if body is None:
            return
        replay = _Replay(body, receive)
        working = asyncio.ensure_future(self._app(scope, replay, send))
        going = asyncio.ensure_future(replay.until_gone())
        try:
            await asyncio.wait((working, going), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # In the end both have ended, and what they held is free.
            for one in (working, going):
                one.cancel()
            await asyncio.wait((working, going))
        with contextlib.suppress(asyncio.CancelledError):
            working.result()

    async def _body(self, receive: Receive, declared_bytes: int) -> bytes | None:
        """The whole body; None where the client went away before its end."""
        parts, size, more = [], 0, True
        while more and max(size, declared_bytes) <= _MOST_READ * self._most_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            size += len(message.get("body", b""))
            # Too much is read to its end all the same: clients read no answer before they have
            # sent everything.
            if size <= self._most_bytes:
                parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        if max(size, declared_bytes) > self._most_bytes:
            raise refusals.TooLargeError(
                f"The request's body is larger than {self._body_mib:g} MiB "
                "(gateway.limits.body_mib)"
            )
        return b"".join(parts)


class _Replay:
    """Gives the body, and then nothing until the client is gone."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._gone = asyncio.Event()

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()


class _Sender:
    """Adds the request's id to the answer, and knows whether it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id, self.started = send, request_id, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            own = (_REQUEST_ID, self.request_id.encode())
            message = {**message, "headers": [*message.get("headers", ()), own]}
        await self._send(message)
