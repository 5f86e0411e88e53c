"""One card: its versions and what may be done to them, its exam, where it comes from and lies."""

from __future__ import annotations

import asyncio
import dataclasses

from nicegui import ui

from services.gateway import domain
from services.gateway.console import card_facts, frame, live, parts, wording
from services.gateway.console import desk as desks
from shared import errors, terminal

_EVERY_S = 3.0
_LATEST = "latest"
_JUDGED = 20
"""Versions whose feedback is counted."""
_ALIASES = {
    _LATEST: "Questions about its subject are then answered by this version.",
    "production": "Clients that ask for this alias then get this version.",
}


@dataclasses.dataclass(frozen=True)
class _Version:
    card: domain.Card
    nodes: int
    selected: bool
    said: domain.CardFeedback | None
    """By users of its answers; None where nobody tells."""


@dataclasses.dataclass(frozen=True)
class _Told:
    versions: tuple[domain.Card, ...]
    held: tuple[domain.Residency, ...]
    in_memory: tuple[tuple[str, bool, bool], ...]
    """Of each node's `name@digest`: address and reference, whether in memory, whether pinned."""
    said: tuple[domain.CardFeedback, ...]
    """Of the newest versions; empty where the factory does not answer."""


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    _Card(desk, path["name"])


class _Card:
    """The page's state: which version is looked at."""

    def __init__(self, desk: desks.Desk, name: str) -> None:
        self._desk, self._name = desk, name
        self._selected = ""
        self._shown = ""
        self._told: _Told | None = None
        frame.way_back("All cards", "/cards")
        with parts.block("div", "page-head"):
            with parts.block("div"):
                parts.Text("h1", name)
                self._about = parts.Text("p", "")
            self._roll_back = parts.block("div", "row")
        self._notice = live.Notice()
        self._trouble = live.Notice()
        with parts.section("Versions"):
            self._versions = self._table()
            self._nothing = parts.block("div")
        self._record = parts.block("div", "stack wide")
        with parts.section("On the nodes", "Which version each node may answer with."):
            self._nodes = card_facts.ResidencyTable()
            self._no_nodes = parts.block("div")
        if desk.session.may("CardStore/RollBackAlias"):
            with self._roll_back:
                parts.button(
                    "Roll back", self._ask_roll_back, about=f"{name} to the version before"
                )
        live.follow(desk, _EVERY_S, "card store", self._fetch, self._show, self._trouble)

    async def _fetch(self) -> _Told:
        store = self._desk.peers.store
        versions, held = await store.versions(self._name), await store.residency()
        lying = []
        for node in self._desk.nodes.nodes():
            for one in node.served:
                if wording.card_name(one) == self._name:
                    lying.append(
                        (node.address + " " + one, one in node.resident, one in node.pinned)
                    )
        still = tuple(dataclasses.replace(one, reported_at_ms=0) for one in held)
        return _Told(tuple(versions), still, tuple(lying), await self._said(versions))

    async def _said(self, versions: list[domain.Card]) -> tuple[domain.CardFeedback, ...]:
        if not self._desk.session.may("Factory/GetCardFeedback"):
            return ()
        factory = self._desk.peers.factory
        asked = [factory.card_feedback(one.reference) for one in versions[:_JUDGED]]
        try:
            return tuple(await asyncio.gather(*asked))
        except errors.SkillmeshError:
            return ()  # What the store tells is the page's subject, and is shown without it.

    def _show(self, told: _Told) -> None:
        self._told = told
        known = [one.digest for one in told.versions]
        if self._selected not in known:
            latest = [one.digest for one in told.versions if _LATEST in one.aliases]
            self._selected = (latest or known or [""])[0]
        self._show_versions()

    def _show_versions(self) -> None:
        told = self._told
        if told is None:
            return
        said = {one.card: one for one in told.said}
        self._versions.show(
            {
                one.digest: _Version(
                    one,
                    sum(one.digest in node.digests for node in told.held),
                    one.digest == self._selected,
                    said.get(one.reference),
                )
                for one in told.versions
            }
        )
        self._roll_back.set_visibility(len(told.versions) > 1)
        self._nothing.clear()
        if not told.versions:
            with self._nothing:
                parts.empty(
                    "No version is in service",
                    "There is no such card, or all its versions were deleted or revoked.",
                    f"{frame.PREFIX}/cards",
                    "All cards",
                )
        states = {key: (memory, pinned) for key, memory, pinned in told.in_memory}
        rows = self._nodes.show(self._name, told.versions, told.held, states)
        self._no_nodes.clear()
        if not rows:
            with self._no_nodes:
                parts.Text("p", "No node has reported what it serves.", "muted")
        if self._selected and self._selected != self._shown:
            self._shown = self._selected
            # Once for each version that is looked at: what is published never changes.
            with self._record:
                ui.timer(0, self._show_record, once=True)

    async def _show_record(self) -> None:
        digest = self._selected
        try:
            with self._desk.session.acting():
                record = await self._desk.peers.store.record(digest)
        except errors.SkillmeshError as error:
            self._notice.trouble(error, "card store")
            return
        self._about.text = record.card.description or record.card.domain
        self._record.clear()
        with self._record:
            card_facts.show(record)

    def _table(self) -> parts.Table[_Version]:
        may_promote = self._desk.session.may("CardStore/SetAlias")
        may_revoke = self._desk.session.may("CardStore/Revoke")

        def row(one: _Version) -> None:
            card = one.card
            with table.cell(classes="lead"), parts.block("span", "row"):
                chosen = {"aria_current": "true"} if one.selected else {}
                parts.button(
                    card.version,
                    lambda: self._select(card.digest),
                    "small",
                    f"look at {card.version}",
                    **chosen,
                )
                parts.Text("span", wording.digest(card.digest), "sub mono")
            with table.cell(classes="" if card.aliases else "none"), parts.block("span", "row"):
                for alias in card.aliases:
                    parts.chip(alias, "accent" if alias == _LATEST else "good")
            table.cell(str(one.nodes))
            _said(table, one.said)
            table.cell(terminal.size(card.size_bytes))
            with table.cell():
                parts.moment(card.created_at_ms)
            with table.cell(classes="actions"), parts.block("div", "row"):
                about = f"version {card.version}"
                for alias in _ALIASES:
                    if may_promote and alias not in card.aliases:
                        words = "Promote" if alias == _LATEST else f"Mark {alias}"
                        self._promoter(words, card, alias, about)
                if may_revoke:
                    parts.button("Revoke", lambda: self._ask_revoke(card), "small danger", about)

        table = parts.Table[_Version](
            f"Versions of {self._name}, the newest first",
            (
                parts.Column("Version"),
                parts.Column("Aliases"),
                parts.Column("Nodes", "number"),
                parts.Column("Users said", "number"),
                parts.Column("Size", "number"),
                parts.Column("Made", "number"),
                parts.Column("Actions", "actions"),
            ),
            row,
        )
        return table

    def _promoter(self, words: str, card: domain.Card, alias: str, about: str) -> None:
        async def ask() -> None:
            title = f"Point {alias} to version {card.version}?"
            if not await live.confirmed(title, _ALIASES[alias], words):
                return
            await self._do(
                lambda: self._desk.peers.store.promote(self._name, alias, card.digest),
                f"{alias} points to version {card.version} now.",
            )

        parts.button(words, ask, "small", about)

    def _select(self, digest: str) -> None:
        self._selected = digest
        self._show_versions()

    async def _ask_roll_back(self) -> None:
        about = (
            f"{_LATEST} goes back to where it pointed before its last move; nodes follow at once."
        )
        if await live.confirmed(f"Roll back {self._name}?", about, "Roll back"):
            await self._do(
                lambda: self._desk.peers.store.roll_back(self._name, _LATEST),
                "Rolled back to the version before.",
            )

    async def _ask_revoke(self, card: domain.Card) -> None:
        reason = await live.confirmed(
            f"Revoke version {card.version}?",
            "Every node unloads it, and it can never be published again. This can't be taken back.",
            "Revoke for ever",
            danger=True,
            reason="Why (for the log)",
        )
        if reason is not None:
            await self._do(
                lambda: self._desk.peers.store.revoke(
                    card.digest, reason or "revoked at the console"
                ),
                f"Version {card.version} is revoked; nodes unload it.",
            )

    async def _do(self, call: live.Call, done: str) -> None:
        if await live.attempt(self._desk, "card store", self._notice, call):
            self._notice.say(done, tone="good")
            try:
                with self._desk.session.acting():
                    self._show(await self._fetch())
            except errors.SkillmeshError as error:
                self._notice.trouble(error, "card store")


def _said(table: parts.Table[_Version], told: domain.CardFeedback | None) -> None:
    """How often users called its answers right and wrong."""
    if told is None or not told.right + told.wrong:
        table.cell("–" if told else "", classes="none")
        return
    with table.cell(), parts.block("span", "counts"):
        parts.Text("span", f"{told.right:,} right")
        parts.Text("span", f"{told.wrong:,} wrong", "sub")
