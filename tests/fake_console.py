"""The console over a fake cluster, as a process: `python -m tests.fake_console [TOKENS]`.

Prints its port. `POST /scene/NAME` changes what it shows, `GET /calls` tells what was asked of it;
it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import pathlib
import socket
import sys
from typing import Any

import fastapi
import nicegui
import uvicorn

from services.gateway import console
from shared import settings as config
from tests import fake_cluster


def app_of(fake: fake_cluster.Fake, tokens: pathlib.Path | None) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.post("/scene/{name}")
    async def scene(name: str) -> None:
        fake.scene = name
        fake.calls.clear()
        fake.trained.clear()
        fake.learned.clear()
        fake.corrections.clear()
        fake.live.clear()
        fake.revoked.clear()
        fake.latest = fake_cluster.CARDS[0].digest

    @app.get("/calls")
    async def calls() -> list[Any]:
        return fake.calls

    @app.post("/trained")
    async def trained() -> None:
        fake.trained.set()

    @app.post("/impatient")
    async def impatient() -> None:
        """From now on a page is gone as soon as its connection is."""
        nicegui.app.config.reconnect_timeout = 0.5

    @app.get("/polls")
    async def polls() -> int:
        return fake.polls

    settings = config.Settings(
        security=config.Security(tokens=tokens),
        hierarchy=config.Hierarchy(enabled=tokens is None),
    )
    console.mount(app, settings, fake, fake)  # type: ignore[arg-type]
    return app


async def main(tokens: pathlib.Path | None) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    app = app_of(fake_cluster.Fake(), tokens)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=1
        )
    )
    print(listening.getsockname()[1], flush=True)
    serving = asyncio.create_task(server.serve([listening]))
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None))
