"""Inference nodes: load, cards in memory, how fast they took cards in, who is left alone."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import frame, live, parts, wording

_EVERY_S = 1.0
_SWAPS_SHOWN = 6
_CARDS_SHOWN = 12
_STATES = {
    "ready": ("ready", "good", ""),
    "open": ("left alone", "bad", "It failed several times in a row; nobody asks it for a while."),
    "half-open": ("being tried", "warn", "One request tries whether it is well again."),
    "gone": ("gone", "bad", "It does not answer any more, or the card store forgot it."),
}
"""Of a node: the word, its colour, what it means."""


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    frame.head("Nodes", "Where questions are answered, with which cards, and how busy that is.")
    notice = live.Notice()
    with parts.block("div", "figures"):
        nodes, running = parts.Figure("Nodes"), parts.Figure("Answers under way")
        waiting, swap = parts.Figure("Waiting"), parts.Figure("Median swap")
    holder = parts.block("div", "stack wide")
    keyed = parts.Keyed[domain.NodeState](holder, "div", _panel)
    nothing = parts.block("div")

    async def fetch() -> tuple[domain.NodeState, ...]:
        # How many it answered so far is shown nowhere, and would build all anew every second.
        told = tuple(
            dataclasses.replace(one, requests=(), in_flight=0) for one in desk.nodes.nodes()
        )
        if desk.session.caller.tenants is None:
            return told
        # The gateway sees every tenant's cards: what this caller may know of the store tells.
        held = await desk.peers.store.residency()
        digests = frozenset(digest for one in held for digest in one.digests)
        return tuple(_with_cards(one, digests) for one in told)

    def show(told: tuple[domain.NodeState, ...]) -> None:
        ready = sum(one.status == "ready" for one in told)
        tone = "good" if told and ready == len(told) else "bad"
        nodes.show(f"{len(told)}", f"{ready} ready", tone)
        rows = sum(one.most_rows for one in told)
        running.show(str(sum(one.running for one in told)), f"of {rows} at once")
        places = sum(one.queue for one in told)
        waiting.show(str(sum(one.waiting for one in told)), f"of {places:,} places")
        times = [swap.fetch_ms + swap.swap_ms for one in told for swap in one.swaps]
        if times:
            swap.show(f"{statistics.median(times):,.0f} ms", "from the store into memory")
        else:
            swap.show("–", "no card was taken in yet")
        keyed.show({one.address: one for one in told})
        nothing.clear()
        if not told:
            with nothing, parts.section("No node is known"):
                advice = "Start one: make up. Others are named in gateway.nodes."
                parts.Text("p", advice, "muted")

    live.follow(desk, _EVERY_S, "gateway", fetch, show, notice)


def _with_cards(node: domain.NodeState, digests: frozenset[str]) -> domain.NodeState:
    """A node with those of its cards alone that have one of these digests."""

    def some(cards: Iterable[str]) -> tuple[str, ...]:
        return tuple(card for card in cards if wording.card_digest(card) in digests)

    return dataclasses.replace(
        node,
        served=some(node.served),
        resident=some(node.resident),
        pinned=some(node.pinned),
        swaps=tuple(one for one in node.swaps if some([one.card])),
    )


def _panel(node: domain.NodeState) -> None:
    words, tone, about = _STATES.get(node.status, (node.status, "plain", ""))
    with parts.section(node.address):
        with parts.block("div", "row"):
            parts.chip(words, tone)
            if not node.store_connected and node.status == "ready":
                parts.chip("without the card store", "warn")
            if about:
                parts.Text("span", about, "muted")
        if node.reason:
            parts.Text("p", node.reason, "muted")
        with parts.block("div", "pair"):
            for name, value, most in (
                ("Answers under way", node.running, node.most_rows),
                ("Requests that wait", node.waiting, node.queue),
            ):
                with parts.block("div", "measure"):
                    parts.Text("span", name)
                    parts.Text("strong", f"{value} of {most:,}")
                    parts.meter(value / max(1, most), f"{name}: {value} of {most}")
        parts.facts(
            [
                ("Base model", node.base_model),
                ("Name", node.id),
                ("Follows revision", f"{node.revision:,}"),
                ("Cards served", f"{len(node.served):,}, {len(node.resident):,} in memory"),
            ]
        )
        with parts.block("div", "pair"):
            _cards(node)
            _swaps(node)


def _cards(node: domain.NodeState) -> None:
    with parts.block("div", "stack"):
        parts.Text("h3", "Cards in memory")
        if not node.resident:
            parts.Text("p", "None: cards come into memory when they are asked.", "muted")
            return
        with parts.block("ul", "lines"):
            # Used last comes last.
            for one in reversed(node.resident[-_CARDS_SHOWN:]):
                with parts.block("li", "row"):
                    to = f"{frame.PREFIX}/cards/{wording.card_name(one)}"
                    parts.link(wording.card(one), to)
                    if one in node.pinned:
                        parts.chip("pinned", "accent")
            if len(node.resident) > _CARDS_SHOWN:
                parts.Text("li", f"and {len(node.resident) - _CARDS_SHOWN:,} more", "muted")


def _swaps(node: domain.NodeState) -> None:
    with parts.block("div", "stack"):
        parts.Text("h3", "Cards taken in")
        if not node.swaps:
            parts.Text("p", "None yet.", "muted")
            return

        def row(one: domain.Swap) -> None:
            table.cell(wording.card(one.card), "lead")
            table.cell(f"{one.fetch_ms:,.0f} ms")
            table.cell(f"{one.swap_ms:,.0f} ms")

        table = parts.Table[domain.Swap](
            f"The latest cards that {node.address} took in",
            (
                parts.Column("Card"),
                parts.Column("Fetched in", "number"),
                parts.Column("Ready in", "number"),
            ),
            row,
            compact=True,
        )
        latest = list(reversed(node.swaps))[:_SWAPS_SHOWN]
        table.show({str(place): one for place, one in enumerate(latest)})
