"""All cards: what each is about, its version, where it stands, and on how many nodes."""

from __future__ import annotations

import dataclasses

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import frame, live, parts, wording
from shared import terminal

_EVERY_S = 3.0
_MOST_SHOWN = 100


@dataclasses.dataclass(frozen=True)
class _Row:
    card: domain.Card
    nodes: int
    """That serve it, of"""
    all_nodes: int


@dataclasses.dataclass(frozen=True)
class _Told:
    cards: tuple[domain.Card, ...]
    held: tuple[domain.Residency, ...]
    store: domain.Store


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    frame.head("Cards", "Skills that were learned. Each passed an exam before it was published.")
    notice = live.Notice()
    with parts.block("div", "figures"):
        cards, size = parts.Figure("Cards"), parts.Figure("On disk")
        revision = parts.Figure("Revision")
    with parts.section("All cards") as panel:
        search = parts.block(
            "input",
            "input search",
            type="search",
            placeholder="Find by name or subject",
            aria_label="Find cards by name or subject",
        )
        table = _table()
        nothing = parts.block("div")
    told: list[_Told] = []
    words = [""]

    def show_rows() -> None:
        if not told:
            return
        now = told[-1]
        found = [one for one in now.cards if _matches(one, words[0])]
        rows = {
            one.name: _Row(one, sum(one.digest in n.digests for n in now.held), len(now.held))
            for one in found[:_MOST_SHOWN]
        }
        table.show(rows)
        search.set_visibility(bool(now.cards))
        nothing.clear()
        with nothing:
            if not now.cards:
                parts.empty(
                    "No card yet",
                    "Ask something that the base model does not know; the first card is there "
                    "within minutes.",
                    f"{frame.PREFIX}/",
                    "Ask a question",
                )
            elif not found:
                parts.empty("No card like that", "Use fewer words, or others.")
            elif len(found) > _MOST_SHOWN:
                counted = f"{_MOST_SHOWN} of {len(found):,} cards; look for one to see the others."
                parts.Text("p", counted, "muted")

    def look_for(event: object) -> None:
        words[0] = str(getattr(event, "args", ""))
        show_rows()

    def show(now: _Told) -> None:
        told[:] = [now]
        cards.show(f"{now.store.cards:,}", "of all names and versions")
        size.show(terminal.size(now.store.size_bytes), "all files of the store")
        revision.show(f"{now.store.revision:,}", "of the store's log")
        show_rows()

    async def fetch() -> _Told:
        store = desk.peers.store
        listed, held = await store.cards(), await store.residency()
        newest = sorted(listed, key=lambda one: -one.created_at_ms)
        # When a node last reported is news every second, and changes nothing here.
        still = tuple(dataclasses.replace(one, reported_at_ms=0) for one in held)
        return _Told(tuple(newest), still, await store.status())

    with panel:
        search.on("input", look_for, throttle=0.2, js_handler="(e) => emit(e.target.value)")
        live.follow(desk, _EVERY_S, "card store", fetch, show, notice)


def _matches(card: domain.Card, words: str) -> bool:
    said = f"{card.name} {card.domain} {card.description}".lower()
    return all(word in said for word in words.lower().split())


def _table() -> parts.Table[_Row]:
    def row(one: _Row) -> None:
        card = one.card
        with table.cell(classes="lead"):
            parts.link(card.name, f"{frame.PREFIX}/cards/{card.name}")
            parts.Text("span", card.description or card.domain, "sub clip")
        with table.cell():
            parts.Text("span", card.version)
            parts.Text("span", wording.digest(card.digest), "sub mono")
        with table.cell(classes="" if card.aliases else "none"), parts.block("span", "row"):
            for alias in card.aliases:
                parts.chip(alias, "accent" if alias == "latest" else "good")
        table.cell(f"{one.nodes} of {one.all_nodes}")
        table.cell(terminal.size(card.size_bytes))
        with table.cell():
            parts.moment(card.created_at_ms)

    table = parts.Table[_Row](
        "Skill cards, the newest first",
        (
            parts.Column("Card"),
            parts.Column("Version"),
            parts.Column("Aliases"),
            parts.Column("Nodes", "number"),
            parts.Column("Size", "number"),
            parts.Column("Made", "number"),
        ),
        row,
    )
    return table
