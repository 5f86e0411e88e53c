"""What all pages share: the way about, who is signed in, light and dark, the pictures."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator

from nicegui import ui

from services.gateway.console import desk as desks
from services.gateway.console import parts

PREFIX = "/console"
"""Where the console is mounted."""
STATIC = pathlib.Path(__file__).parent / "static"
_WAYS = (
    ("Ask", "/", "ask"),
    ("Cards", "/cards", "cards"),
    ("Tasks", "/tasks", "tasks"),
    ("Router", "/router", "router"),
    ("Hierarchy", "/hierarchy", "hierarchy"),
    ("Nodes", "/nodes", "nodes"),
)
_DRAWN = {
    "brand": "M12 3v6M12 15v6M4.2 7.5l5.2 3M14.6 13.5l5.2 3M19.8 7.5l-5.2 3M9.4 13.5l-5.2 3",
    "ask": "M4 5h16v11H9l-5 4z",
    "cards": "M4 8h13v12H4zM8 8V4h12v12h-3",
    "tasks": "M4 6l1.5 1.5L8 5M4 12l1.5 1.5L8 11M4 18l1.5 1.5L8 17M12 6h8M12 12h8M12 18h8",
    "router": "M4 12h5l4-6h7M9 12l4 6h7M17.5 3.5L20 6l-2.5 2.5M17.5 15.5L20 18l-2.5 2.5",
    "hierarchy": "M12 3l9 4.5-9 4.5-9-4.5zM3 12l9 4.5 9-4.5M3 16.5L12 21l9-4.5",
    "nodes": "M4 4h16v7H4zM4 13h16v7H4zM8 7.5h.01M8 16.5h.01",
    "theme": "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
    "out": "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
}
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#0f8a7a" '
    f'stroke-width="2.4" stroke-linecap="round"><path d="{_DRAWN["brand"]}"/></svg>'
)


def share_head() -> None:
    """Gives all pages their style and their pictures; once a process."""
    # A name that changes with the content: caches never hold an old one.
    stamp = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(STATIC.iterdir()))).hexdigest()
    at = f"{PREFIX}/assets"
    ui.add_head_html(
        f'<script src="{at}/console.js?{stamp[:8]}"></script>'
        f'<link rel="stylesheet" href="{at}/console.css?{stamp[:8]}">',
        shared=True,
    )
    symbols = "".join(
        f'<symbol id="icon-{name}" viewBox="0 0 24 24"><path d="{path}"/></symbol>'
        for name, path in _DRAWN.items()
    )
    ui.add_body_html(f'<svg class="icons" aria-hidden="true">{symbols}</svg>', shared=True)


@contextlib.contextmanager
def page(desk: desks.Desk, here: str) -> Iterator[None]:
    """The frame around a page.

    Args:
        desk: of who looks at it.
        here: the path of its subject, such as `/cards`.
    """
    _one_main()
    with parts.block("div", "shell"):
        with parts.block("header", "rail"):
            brand()
            with parts.block("nav", "nav", aria_label="Pages"), parts.block("ul"):
                for words, path, picture in _WAYS:
                    current = {"aria_current": "page"} if path == here else {}
                    with parts.block("li"), parts.block("a", href=PREFIX + path, **current):
                        parts.icon(picture)
                        parts.Text("span", words)
            with parts.block("div", "rail-end"):
                if desk.signs_in:
                    caller = desk.session.caller
                    parts.Text("p", f"{caller.name} · {caller.role.value}", "who")
                theme_toggle()
                if desk.signs_in:
                    form = parts.block("form", method="post", action=f"{PREFIX}/sign-out")
                    with form, parts.block("button", "rail-button", type="submit"):
                        parts.icon("out")
                        parts.Text("span", "Sign out")
        with parts.block("main", "main", tabindex="-1") as main:
            inner = parts.block("div", "page")
    ui.skip_link("Skip to the page", target=main)
    with inner:
        yield


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """A panel alone, for whoever is not inside."""
    _one_main()
    with parts.block("main", "door"), parts.block("div", "panel"):
        with parts.block("div"):
            brand()
        yield


def _one_main() -> None:
    """Takes the role of the page's main part from NiceGUI's own `main`, which has all within."""
    around = ui.context.client.content.parent_slot
    if around is not None:
        around.parent.props["role"] = "presentation"


def brand() -> None:
    """The name, which leads home."""
    with parts.block("a", "brand", href=f"{PREFIX}/"):
        parts.icon("brand")
        parts.Text("span", "skillmesh")


def theme_toggle() -> None:
    """Switches between light and dark in the browser alone, which remembers it."""
    toggle = parts.block("button", "rail-button", type="button", data_theme_toggle="")
    toggle.on("click", js_handler="() => skillmesh.toggleTheme()")
    # Says from the start which of both it is.
    toggle.on("vue:mounted", js_handler="() => skillmesh.say()")
    with toggle:
        parts.icon("theme")
        parts.Text("span", "Dark theme")


def head(title: str, about: str = "") -> None:
    """The heading of a page."""
    with parts.block("div", "page-head"), parts.block("div"):
        parts.Text("h1", title)
        if about:
            parts.Text("p", about)


def way_back(words: str, path: str) -> None:
    """From one thing to all of its kind."""
    parts.link(f"← {words}", PREFIX + path, "link back")
