"""The layers that agents share: whether all is well, each layer, the agents, moves of circuits."""

from __future__ import annotations

from nicegui import ui

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import frame, live, parts, wording

_EVERY_S = 2.0
_TONES = {"healthy": "good", "warning": "warn", "critical": "bad"}
_ACTIONS_SHOWN = 6


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    frame.head(
        "Hierarchy", "What agents are told, they learn at once; three of five layers are shared."
    )
    if not desk.settings.hierarchy.enabled:
        _switched_off()
        return
    notice = live.Notice()
    with parts.block("div", "figures"):
        health, version = parts.Figure("Health"), parts.Figure("Snapshot")
        agents, waiting = parts.Figure("Agents"), parts.Figure("Waiting")
    wrong = parts.block("div", "stack wide")
    with parts.section("Shared layers", "The slower a layer, the more it takes to change it."):
        layers = _layers()
        no_layers = parts.block("div")
    with parts.section("Agents"):
        members = _members()
        nobody = parts.block("div")
    with parts.section("Moves upwards", "Circuits that recur move up, as bandwidth allows."):
        channels = _channels()
    with parts.section("What was done about its health"):
        actions = parts.block("ul", "lines")

    def show(told: domain.SharedLayers) -> None:
        bad = [one for one in told.measures if one.verdict != "healthy"]
        about = f"{len(bad)} of {len(told.measures)} measures off" if bad else "all is well"
        health.show(told.verdict.capitalize() or "–", about, _TONES.get(told.verdict, ""))
        version.show(f"{told.version:,}", f"after {wording.counted(told.tick, 'tick')}")
        agents.show(f"{len(told.members):,}", "take part")
        waiting.show(f"{told.waiting:,}", "submissions for the next tick")
        wrong.clear()
        with wrong:
            for one in bad:
                with parts.block("div", f"notice {_TONES.get(one.verdict, 'warn')}"):
                    where = f" in the {one.where} layer" if one.where else ""
                    parts.Text("strong", f"{one.area.capitalize()}, {one.name}{where}")
                    parts.Text("span", one.message or f"{one.value:.3g}")
        layers.show({one.level: one for one in told.layers})
        members.show({one.agent: one for one in told.members})
        channels.show({one.source: one for one in told.channels})
        _show_empty(no_layers, not told.layers, "No layers yet", "The first agent makes them.")
        tell = 'Tell one something: make tell agent=ada q="…" answer="…"'
        _show_empty(nobody, not told.members, "No agent yet", tell)
        actions.clear()
        with actions:
            for action in told.actions[:_ACTIONS_SHOWN]:
                where = f" {action.where}" if action.where else ""
                said = (
                    f"Tick {action.tick:,}: {action.kind.replace('_', ' ')}{where}, {action.reason}"
                )
                parts.Text("li", said)
            if not told.actions:
                parts.Text("li", "Nothing: it never had to be acted on.", "muted")

    live.follow(desk, _EVERY_S, "hierarchy", desk.peers.hierarchy.whole, show, notice)


def _switched_off() -> None:
    with parts.section("It is switched off"):
        parts.Text(
            "p",
            "Cards are learned once, and stand still. With the hierarchy, agents have a memory "
            "that keeps moving: what you tell one, it learns between the words of its answers, and "
            "what several agree on comes to all. Everything else works without it.",
        )
        with parts.block("ol", "lines"):
            with parts.block("li"):
                parts.Text("span", "Switch it on: ")
                parts.Text("code", "export SKILLMESH__HIERARCHY__ENABLED=true")
            with parts.block("li"):
                parts.Text("span", "Start the cluster again: ")
                parts.Text("code", "make down up")
            with parts.block("li"):
                parts.Text("span", "Tell an agent something: ")
                parts.Text("code", 'make tell agent=ada q="Where is it?" answer="Under the step."')


def _show_empty(place: ui.element, is_empty: bool, title: str, advice: str) -> None:
    place.clear()
    if is_empty:
        with place:
            parts.empty(title, advice)


def _layers() -> parts.Table[domain.Layer]:
    def row(one: domain.Layer) -> None:
        with table.cell(classes="lead"), parts.block("span", "row"):
            parts.Text("strong", one.level.capitalize())
            if one.frozen:
                parts.chip("frozen", "warn")
        table.cell(str(one.rank))
        table.cell(f"{one.inertia:.2f}")
        table.cell(f"{one.entropy:.2f} of {one.entropy_optimum:.2f}")
        table.cell(wording.share(one.screened_share))
        table.cell(f"{one.norm:.2f}")
        table.cell(f"{one.parameters:,}")

    names = ("Rank", "Inertia", "Entropy", "Shielded", "Norm", "Parameters")
    table = parts.Table[domain.Layer](
        "Shared layers, the slowest first",
        (parts.Column("Layer"), *(parts.Column(name, "number") for name in names)),
        row,
    )
    return table


def _members() -> parts.Table[domain.Member]:
    def row(one: domain.Member) -> None:
        with table.cell(classes="lead"):
            parts.Text("strong", one.agent)
        table.cell(one.node)
        table.cell(f"{one.examples:,}")
        with table.cell():
            parts.Text("span", f"{one.submissions:,}")
            if one.refused:
                parts.Text("span", f"{one.refused:,} refused", "sub")
        with table.cell():
            parts.chip(
                "settled" if one.is_settled else "moving", "good" if one.is_settled else "busy"
            )
        with table.cell():
            parts.moment(one.seen_at_ms)

    table = parts.Table[domain.Member](
        "Agents that take part",
        (
            parts.Column("Agent"),
            parts.Column("Node"),
            parts.Column("Examples", "number"),
            parts.Column("Submissions", "number"),
            parts.Column("State", "nowrap"),
            parts.Column("Seen", "number"),
        ),
        row,
    )
    return table


def _channels() -> parts.Table[domain.Channel]:
    def row(one: domain.Channel) -> None:
        table.cell(f"{one.source.capitalize()} → {one.target}", "lead")
        table.cell(f"{one.depth:,}")
        table.cell(wording.counted(one.longest_wait, "tick"))
        table.cell(f"{one.bandwidth_left:,.0f}")

    table = parts.Table[domain.Channel](
        "Circuits that wait to move up",
        (
            parts.Column("From and to"),
            parts.Column("Waiting", "number"),
            parts.Column("Longest wait", "number"),
            parts.Column("Bandwidth left", "number"),
        ),
        row,
    )
    return table
