"""Puts the console into the gateway's app: pages, sign-in, style, headers. All wiring is here."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import fastapi
import nicegui
from fastapi import responses
from nicegui import ui

from services.gateway.calls import peers as connections
from services.gateway.console import (
    asking,
    card_list,
    card_page,
    desk,
    frame,
    hierarchy_page,
    node_list,
    router_page,
    sessions,
    signing_in,
    task_list,
    task_page,
)
from shared import errors
from shared import settings as config
from shared.security import callers

PREFIX = frame.PREFIX
_COOKIE = "skillmesh_console"
_KEY = "key"
_LIFETIME_S = 12 * 3600
_RECONNECT_S = 30.0
"""A phone that changes its network, or a server that is busy, loses nothing on the page."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing comes from elsewhere or goes there, whatever is written in an answer."""

Build = Callable[[desk.Desk, dict[str, str]], None]
_PAGES: tuple[tuple[str, str, str, Build], ...] = (
    ("/", "Ask", "/", asking.build),
    ("/cards", "Cards", "/cards", card_list.build),
    ("/cards/{name}", "Card", "/cards", card_page.build),
    ("/tasks", "Tasks", "/tasks", task_list.build),
    ("/tasks/{task_id}", "Task", "/tasks", task_page.build),
    ("/router", "Router", "/router", router_page.build),
    ("/hierarchy", "Hierarchy", "/hierarchy", hierarchy_page.build),
    ("/nodes", "Nodes", "/nodes", node_list.build),
)
"""Path, title, subject, and what builds it."""


def mount(
    app: fastapi.FastAPI, settings: config.Settings, peers: connections.Peers, fleet: desk.Nodes
) -> None:
    """Mounts the console at `PREFIX`; once a process, since NiceGUI has one app a process.

    Args:
        app: the gateway's; its lifespan then starts and stops the pages as well.
        settings: of the cluster.
        peers: its services.
        fleet: its inference nodes.
    """
    admitted = callers.Callers(settings.security.tokens)
    signs_in = settings.security.tokens is not None
    signed_in = sessions.Sessions(admitted, _LIFETIME_S)

    def session_of(request: fastapi.Request) -> sessions.Session | None:
        if not signs_in:
            return sessions.OPEN
        return signed_in.find(str(request.session.get(_KEY, "")))

    for path, title, here, build in _PAGES:
        _serve(
            path,
            title,
            here,
            build,
            lambda session: desk.Desk(peers, fleet, settings, session, signs_in),
            session_of,
        )
    _serve_door(signed_in)
    # Who types the address alone means the pages; the API stands under a path of its own.
    app.add_api_route("/", _to_the_pages, include_in_schema=False)
    frame.share_head()
    nicegui.app.add_static_files("/assets", frame.STATIC)
    nicegui.app.add_middleware(_Headers)
    ui.run_with(
        app,
        root=_nowhere,
        title="skillmesh",
        favicon=frame.FAVICON,
        dark=None,
        language="en-US",
        mount_path=PREFIX,
        tailwind=False,
        reconnect_timeout=_RECONNECT_S,
        show_welcome_message=False,
        # Sessions end with the process, so the key that signs their cookies may as well.
        storage_secret=secrets.token_urlsafe(32),
        session_middleware_kwargs={
            "session_cookie": _COOKIE,
            "path": PREFIX,
            "same_site": "lax",
            "max_age": _LIFETIME_S,
            "https_only": settings.security.tls.certificate is not None,
        },
    )


async def _to_the_pages() -> responses.Response:
    return responses.RedirectResponse(f"{PREFIX}/")


def _serve(
    path: str,
    title: str,
    here: str,
    build: Build,
    desk_of: Callable[[sessions.Session], desk.Desk],
    session_of: Callable[[fastapi.Request], sessions.Session | None],
) -> None:
    def shown(request: fastapi.Request) -> responses.Response | None:
        session = session_of(request)
        if session is None:
            return responses.RedirectResponse(f"{PREFIX}/sign-in", status_code=303)
        mine = desk_of(session)
        with frame.page(mine, here):
            build(mine, dict(request.path_params))
        return None

    ui.page(path, title=f"{title} · skillmesh")(shown)


def _serve_door(signed_in: sessions.Sessions) -> None:
    @ui.page("/sign-in", title="Sign in · skillmesh")
    def door(wrong: int = 0) -> None:
        signing_in.build(bool(wrong))

    @nicegui.app.post("/sign-in", include_in_schema=False)
    async def enter(request: fastapi.Request) -> responses.Response:
        form = await request.form(max_files=0, max_fields=4)
        try:
            if not _is_ours(request):
                raise errors.UnauthenticatedError("the form was sent by another site")
            key = signed_in.open(str(form.get("token", "")))
        except errors.UnauthenticatedError:
            return responses.RedirectResponse(f"{PREFIX}/sign-in?wrong=1", status_code=303)
        signed_in.close(str(request.session.get(_KEY, "")))
        # A new identity for whoever proved who they are: one known before is worth nothing.
        request.session.clear()
        request.session[_KEY] = key
        return responses.RedirectResponse(f"{PREFIX}/", status_code=303)

    @nicegui.app.post("/sign-out", include_in_schema=False)
    async def leave(request: fastapi.Request) -> responses.Response:
        if _is_ours(request):
            signed_in.close(str(request.session.get(_KEY, "")))
            request.session.clear()
        return responses.RedirectResponse(f"{PREFIX}/sign-in", status_code=303)


def _is_ours(request: fastapi.Request) -> bool:
    """Whether a form was sent by a page of this origin; browsers say so."""
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def _nowhere() -> None:
    """What stands at an address without a page."""
    ui.context.client.status_code = 404
    with frame.outside():
        frame.head("There is no such page", "It may have been moved, or the address is wrong.")
        frame.way_back("Ask a question", "/")


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Headers:
    """Tells browsers to keep to this origin."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"same-origin"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)
