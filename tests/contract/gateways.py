"""Gateways served by uvicorn on loopback, with nodes of the test's own, and OpenAI's client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import openai

from services.gateway import domain
from services.gateway.openai_api import asking
from services.gateway.web import server
from shared import errors
from shared import settings as config
from shared.rpc import access
from shared.security import callers

NODE = "127.0.0.1:9"
BASE = "tiny-base"
HANGING_S = 180.0
"""Nothing here waits for long: a test that hangs fails."""
ROLES = tuple(role.value for role in callers.Role)


class FakeFleet:
    """Answers with the pieces that it was told to."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces or ("It ", "was ", "Ann.")
        self.answer_with = domain.Answer(
            text="",
            card="",
            confidence=0.25,
            dissonance=False,
            event_id="",
            prompt_tokens=7,
            new_tokens=3,
            node=NODE,
        )
        self.logprobs: tuple[domain.TokenLogprob, ...] = ()
        self.fails: BaseException | None = None
        self.hangs = False
        """No piece ever comes."""
        self.fails_after: BaseException | None = None
        """All pieces but the last."""
        self.asked: list[domain.Asked] = []
        self.shown: list[str | None] = []
        """The authorization that calls were made with."""
        self.running = 0
        self.holds = asyncio.Event()
        """Clear it, and no answer goes on after its first piece."""
        self.holds.set()
        self.idle = asyncio.Event()
        self.pinned: list[str] = []

    async def stream(
        self, asked: domain.Asked, deadline_s: float | None
    ) -> AsyncGenerator[domain.Piece, None]:
        self._note(asked)
        self.running += 1
        self.idle.clear()
        try:
            if self.fails is not None:
                raise self.fails
            await self._hang()
            for text in self.pieces:
                yield domain.Piece(text, self.logprobs[:1])
                await self.holds.wait()
            if self.fails_after is not None:
                raise self.fails_after
            yield domain.Piece("", (), self._answer())
        finally:
            self.running -= 1
            self.idle.set()

    async def answer(self, asked: domain.Asked, deadline_s: float | None) -> domain.Whole:
        self._note(asked)
        self.running += 1
        self.idle.clear()
        try:
            if self.fails is not None:
                raise self.fails
            await self._hang()
            await self.holds.wait()
            return domain.Whole(self._answer(), self.logprobs)
        finally:
            self.running -= 1
            self.idle.set()

    def nodes(self) -> tuple[domain.NodeState, ...]:
        told = domain.Node(BASE, (), (), revision=1, store_connected=True)
        return (domain.NodeState(**vars(told), address=NODE, status="ready"),)

    async def pin(self, card: str) -> tuple[str, ...]:
        self.pinned.append(card)
        self.shown.append(access.on_whose_behalf())
        return (NODE,)

    async def unpin(self, card: str) -> tuple[str, ...]:
        self.pinned.remove(card)
        return (NODE,)

    async def _hang(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    def _note(self, asked: domain.Asked) -> None:
        self.asked.append(asked)
        self.shown.append(access.on_whose_behalf())

    def _answer(self) -> domain.Answer:
        return dataclasses.replace(self.answer_with, text="".join(self.pieces))


@dataclasses.dataclass
class Gateway:
    """A running gateway."""

    running: server.Running
    scheme: str = "http"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.running.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def client(self, key: str = "any", **more: Any) -> openai.AsyncOpenAI:
        """OpenAI's own client; it retries nothing unless it is told to."""
        return openai.AsyncOpenAI(
            api_key=key, base_url=f"{self.url}/v1", **({"max_retries": 0} | more)
        )

    async def raw(self, request: bytes, until: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Sends bytes, and reads the answer to its end, or until something was read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        try:
            async with asyncio.timeout(HANGING_S):
                writer.write(request)
                await writer.drain()
                return await read_answer(reader, until)
        finally:
            writer.close()
            # A server that did not read all that was sent may hang up on the rest.
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:
        """One request by hand; the status, the headers, and what the JSON of the answer says."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body or b""
        lines = {
            "host": self.address,
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(data)),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        status, told, content = await self.raw(
            f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data
        )
        return status, told, json.loads(content) if content else None


async def read_answer(
    reader: asyncio.StreamReader, until: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of an answer without parts."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    content = b""
    while not until or until not in content:
        part = await reader.read(65536)
        if not part:
            break
        content += part
    return int(head[0].split()[1]), headers, content


@contextlib.asynccontextmanager
async def serving(
    settings: config.Settings, fleet: asking.Fleet | None = None
) -> AsyncIterator[Gateway]:
    """A gateway on a free port."""
    gateway = settings.gateway.model_copy(update={"address": "127.0.0.1:0", "console": False})
    chosen = settings.model_copy(update={"gateway": gateway})
    async with server.running(chosen, fleet) as running:
        yield Gateway(running, "https" if settings.security.tls.certificate else "http")


def tokens(folder: pathlib.Path) -> config.Security:
    """A token for each role, which is the role's name."""
    entries = [
        {"name": role, "sha256": callers.hash_of(role), "role": role, "tenants": ["*"]}
        for role in ROLES
    ]
    path = folder / "tokens.json"
    path.write_text(json.dumps(entries))
    return config.Security(tokens=path)


def unreachable() -> errors.UnavailableError:
    """What a caller may see a word of."""
    return errors.UnavailableError("no inference node answers")
