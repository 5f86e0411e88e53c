"""`cards show`: versions, aliases, the gate's table, where a card comes from and who holds it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import rich.table

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.command_line import listing, reaching
from shared import errors, terminal
from shared.cards import manifest as manifests

_LATEST = "latest"
_SHORTEST_DIGEST = 6


@dataclasses.dataclass(frozen=True)
class _Page:
    record: domain.CardRecord
    versions: list[domain.Card]
    moves: dict[str, list[domain.Move]]
    """By alias."""
    nodes: list[domain.Residency]


async def show(reference: str, as_json: bool) -> None:
    """Prints everything about one card.

    Args:
        reference: name, name@alias, name@digest, or a digest or its beginning.
        as_json: print one JSON object.
    """
    page = await reaching.asked(lambda services: _page(services, reference))
    if as_json:
        terminal.print_json(_told(page))
    else:
        _show(page)


async def found(services: peers.Peers, reference: str) -> domain.CardRecord:
    """One card, also by the beginning of its digest.

    Raises:
        terminal.UsageError: nothing is named, or several digests begin so.
        errors.NotFoundError: the store has none like that.
    """
    if not reference.strip():
        raise terminal.UsageError("the name of a card is missing; `skillmesh cards` lists them")
    name, at, selector = reference.rpartition("@")
    try:
        return await services.store.record(reference)
    except (errors.NotFoundError, errors.InvalidInputError):
        digest = await _whole(services, name if at else "", selector)
        if not digest:
            raise
    return await services.store.record(digest)


async def _whole(services: peers.Peers, name: str, beginning: str) -> str:
    """The one digest that begins so; empty where there is none."""
    if len(beginning) < _SHORTEST_DIGEST or set(beginning) - set("0123456789abcdef"):
        return ""
    if name:
        cards = await services.store.versions(name)
    else:
        cards = [card for card, _ in await services.store.signatures()]
    digests = [card.digest for card in cards if card.digest.startswith(beginning)]
    if len(digests) > 1:
        raise terminal.UsageError(f"{len(digests)} digests begin with {beginning}; give more of it")
    return "".join(digests)


async def _page(services: peers.Peers, reference: str) -> _Page:
    record = await found(services, reference)
    name = record.card.name
    versions, nodes = await asyncio.gather(
        services.store.versions(name), services.store.residency()
    )
    aliases = {alias for card in versions for alias in card.aliases} | {_LATEST}
    moves = {alias: await services.store.moves(name, alias) for alias in sorted(aliases)}
    return _Page(record, versions, moves, nodes)


def signers(signature_json: str) -> list[str]:
    """Ids of the keys that a DSSE envelope names, not verified; none where it is not signed."""
    try:
        named = json.loads(signature_json or "{}").get("signatures", [])
        return [str(one.get("keyid", "")) for one in named]
    except (ValueError, AttributeError):
        return []


def _held(page: _Page) -> list[dict[str, Any]]:
    """Of each node the versions of the card that it holds."""
    ours = {card.digest: card.version for card in page.versions}
    ours[page.record.card.digest] = page.record.card.version
    return [
        {
            "node_id": node.node_id,
            "address": node.address,
            "revision": node.revision,
            "holds": [digest for digest in node.digests if digest in ours],
        }
        for node in page.nodes
    ]


def _told(page: _Page) -> dict[str, Any]:
    manifest = page.record.manifest
    dumped = manifest.model_dump(mode="json", include={"base_model", "gate", "lineage", "licence"})
    return {
        **dataclasses.asdict(page.record.card),
        **dumped,
        "route": manifest.route,
        "examples": list(manifest.routing.examples) if manifest.routing else [],
        "signers": signers(page.record.signature_json),
        "versions": page.versions,
        "moves": page.moves,
        "nodes": _held(page),
    }


def _show(page: _Page) -> None:
    card, manifest = page.record.card, page.record.manifest
    say = terminal.RESULT.print
    say(terminal.escape(f"{card.name} {card.version}, {card.digest}"), style="bold", soft_wrap=True)
    rows = {
        "state": card.state.lower() + (", its bytes at a peer" if card.is_remote else ""),
        "about": card.description,
        "domain": card.domain,
        "aliases": ", ".join(card.aliases),
        "route": manifest.route or "by its questions",
        "size": terminal.size(card.size_bytes),
        "base model": f"{manifest.base_model.id} {manifest.base_model.fingerprint[:12]}",
        "licence": manifest.licence,
        "signed by": ", ".join(signers(page.record.signature_json)) or "nobody",
        **_lineage(manifest),
    }
    grid = rich.table.Table.grid(padding=(0, 2))
    for name, value in rows.items():
        if value:
            grid.add_row(name, terminal.escape(value))
    say(grid)
    if manifest.gate:
        say(_gate(manifest))
    if page.versions:
        say(listing.card_table(page.versions))
    for alias, moves in page.moves.items():
        for move in moves:
            moved = f"{alias} → {move.digest[:12]} at {terminal.moment(move.moved_at_ms)}"
            say(terminal.escape(f"{moved}, revision {move.revision}"))
    for node in _held(page):
        held = ", ".join(digest[:12] for digest in node["holds"]) or "does not hold it"
        where = node["address"] or node["node_id"]
        say(terminal.escape(f"node {where} at revision {node['revision']}: {held}"))


def _lineage(manifest: manifests.Manifest) -> dict[str, str]:
    if manifest.lineage is None:
        return {"comes from": "nobody says: merged, extracted or imported"}
    lineage = manifest.lineage
    return {
        "task": lineage.task_id,
        "teacher": lineage.teacher,
        "dataset": lineage.dataset_digest,
        "recipe": ", ".join(f"{name} {value}" for name, value in lineage.recipe.items()),
        "seed": str(lineage.seed),
        "code": lineage.code_version,
    }


def _gate(manifest: manifests.Manifest) -> rich.table.Table:
    table = rich.table.Table("gate", "right", "asked", "required", "passed")
    for row in manifest.gate:
        table.add_row(
            terminal.escape(row.name),
            str(row.right),
            str(row.asked),
            f"{row.required:.0%}",
            "not asked" if row.passed and not row.asked else "yes" if row.passed else "no",
        )
    return table
