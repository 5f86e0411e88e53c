"""What a card says of itself, its exam above all, and which nodes have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from services.gateway import domain
from services.gateway.console import frame, parts, wording
from shared.cards import manifest as manifests

_EXAMPLES = 6
_GATE_WORDS = {
    "before": "Not known to the bare model",
    "triggers": "Questions that caused it",
    "trained": "Questions it was trained on",
    "held_out": "Wordings it never saw",
    "held_out_alone": "Those, by the card alone",
    "implications": "What follows from them",
    "contrasts": "Look-alikes left alone",
    "regression": "What the version before answers",
    "known": "Known questions unchanged",
    "unrelated": "Unrelated questions unchanged",
    "routed": "Its questions are sent to it",
    "elsewhere": "Others are not sent to it",
    "other_cards": "Other cards keep theirs",
    "robbed": "No card loses most of its own",
}


def show(record: domain.CardRecord) -> None:
    """Shows the manifest of one version."""
    manifest = record.manifest
    with parts.block("div", "pair uneven"):
        with parts.section("Exam", f"What version {manifest.version} had to pass."):
            if manifest.gate:
                _gate(manifest.gate)
            else:
                parts.Text("p", "This card was published without an exam.", "muted")
        with parts.section("Where it comes from"):
            _lineage(manifest, bool(record.signature_json))
    if manifest.routing is not None and manifest.routing.examples:
        with parts.section("What it is asked"), parts.block("ul", "lines"):
            examples = manifest.routing.examples
            for one in examples[:_EXAMPLES]:
                parts.Text("li", one)
            if len(examples) > _EXAMPLES:
                parts.Text("li", f"and {len(examples) - _EXAMPLES:,} more", "muted")


def _gate(rows: Sequence[manifests.GateRow]) -> None:
    known = list(_GATE_WORDS)
    rows = sorted(rows, key=lambda one: known.index(one.name) if one.name in known else len(known))

    def row(one: manifests.GateRow) -> None:
        with table.cell():
            parts.Text("span", _GATE_WORDS.get(one.name, one.name.replace("_", " ").capitalize()))
        table.cell(f"{one.right} of {one.asked}" if one.asked else "–")
        table.cell(wording.share(one.required))
        with table.cell():
            if one.passed and not one.asked:
                parts.chip("not asked", "plain")
            else:
                parts.chip("passed" if one.passed else "failed", "good" if one.passed else "bad")

    table = parts.Table[manifests.GateRow](
        "The gate's table",
        (
            parts.Column("Asked"),
            parts.Column("Right", "number"),
            parts.Column("Required", "number"),
            parts.Column("Verdict", "number"),
        ),
        row,
        compact=True,
    )
    table.show({f"{place}": one for place, one in enumerate(rows)})


def _lineage(manifest: manifests.Manifest, signed: bool) -> None:
    lineage = manifest.lineage
    parts.facts(
        [
            ("Base model", manifest.base_model.id),
            ("Adapted layers", ", ".join(manifest.target_modules)),
            ("Signature", "signed by its trainer" if signed else "not signed"),
            ("Licence", manifest.licence),
            ("Teacher", lineage.teacher if lineage else ""),
            ("Dataset", wording.digest(lineage.dataset_digest) if lineage else ""),
            ("Seed", str(lineage.seed) if lineage else ""),
            ("Code version", lineage.code_version if lineage else ""),
            ("Made", wording.stamp(manifest.created_at)),
        ]
    )
    if lineage is None:
        return
    if lineage.task_id:
        parts.link("The task that learned it", f"{frame.PREFIX}/tasks/{lineage.task_id}")
    with parts.block("details", "details"):
        parts.Text("summary", "Recipe")
        parts.facts([(name, str(value)) for name, value in sorted(lineage.recipe.items())])


@dataclasses.dataclass(frozen=True)
class _Held:
    node: str
    versions: tuple[str, ...]
    memory: str
    revision: int


class ResidencyTable:
    """Which node serves which versions of a card, and whether they are in memory."""

    def __init__(self) -> None:
        """Shows nothing yet."""
        self._table = parts.Table[_Held](
            "Nodes and what they hold of this card",
            (
                parts.Column("Node"),
                parts.Column("Serves"),
                parts.Column("In memory"),
                parts.Column("Revision", "number"),
            ),
            self._row,
        )

    def show(
        self,
        name: str,
        versions: Sequence[domain.Card],
        held: Sequence[domain.Residency],
        states: Mapping[str, tuple[bool, bool]],
    ) -> int:
        """Shows it; returns for how many nodes.

        Args:
            name: of the card.
            versions: of it.
            held: what the nodes reported to the store.
            states: by `ADDRESS name@digest`, whether in memory and whether pinned.
        """
        rows = {}
        for node in held:
            mine = [one for one in versions if one.digest in node.digests]
            known = [states.get(f"{node.address} {name}@{one.digest}") for one in mine]
            rows[node.node_id] = _Held(
                node.address or node.node_id,
                tuple(one.version for one in mine),
                _memory([one for one in known if one is not None], bool(mine)),
                node.revision,
            )
        self._table.show(rows)
        return len(rows)

    def _row(self, one: _Held) -> None:
        self._table.cell(one.node, "lead")
        with self._table.cell(), parts.block("span", "row"):
            for version in one.versions:
                parts.chip(version, "good")
            if not one.versions:
                parts.Text("span", "not this card", "muted")
        self._table.cell(one.memory, "" if one.memory else "none")
        self._table.cell(f"{one.revision:,}")


def _memory(states: Sequence[tuple[bool, bool]], served: bool) -> str:
    if any(pinned for _, pinned in states):
        return "yes, pinned"
    if any(resident for resident, _ in states):
        return "yes"
    return "when it is asked" if served and states else ""
