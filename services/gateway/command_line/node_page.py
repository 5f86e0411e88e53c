"""`nodes`: what the inference nodes hold and do, and whether they follow the store."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from typing import Any

import rich.table

from services.gateway import domain
from services.gateway.calls import inference, peers
from shared import errors, terminal
from shared import settings as config
from shared.rpc import client
from shared.security import protection as protections

ANSWER_S = 2.0
"""How long a node may take to say how it is."""
_SWAPS_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class NodeReport:
    """One node, by its own word or the store's."""

    node_id: str
    address: str
    """`host:port`; empty where the node does not say where it answers."""
    answers: bool
    behind: int | None
    """Revisions of the store that it has not applied yet; None where that is not known."""
    node: domain.Node | None
    """What it said of itself; None where it did not answer."""
    reported_at_ms: int
    """Unix time of its latest word to the store; 0 for none."""


async def nodes(as_json: bool) -> None:
    """Prints the nodes that the store knows of and those that are configured.

    Raises:
        errors.UnavailableError: there is none.
        terminal.FailedError: one does not answer.
    """
    settings = config.load()
    found = await reports(settings)
    if not any(report.answers or report.reported_at_ms for report in found):
        raise errors.UnavailableError("no node answers: start the cluster with `make up`")
    if as_json:
        terminal.print_json([_told(report) for report in found])
    else:
        _show(found)
    if silent := [report.address for report in found if report.address and not report.answers]:
        raise terminal.FailedError(f"no answer from {', '.join(silent)}: see `skillmesh logs`")


async def reports(settings: config.Settings) -> list[NodeReport]:
    """All nodes: those configured first, then those that the store knows of besides."""
    async with peers.connected(settings) as services:
        asked = services.store.residency(), services.store.status()
        residency, store = await asyncio.gather(*asked, return_exceptions=True)
    told = [] if isinstance(residency, BaseException) else residency
    head = None if isinstance(store, BaseException) else store.revision
    addresses = dict.fromkeys(
        [
            settings.inference.address,
            *settings.gateway.nodes,
            *(one.address for one in told if one.address),
        ]
    )
    protection = protections.Protection.configured(settings)
    answers = await asyncio.gather(*(_status(address, protection) for address in addresses))
    return _merged(dict(zip(addresses, answers, strict=True)), told, head)


def _merged(
    answers: dict[str, domain.Node | None], told: Iterable[domain.Residency], head: int | None
) -> list[NodeReport]:
    """A report for each node; what the store says of one that answers is only when it said it."""
    by_id = {one.node_id: one for one in told}
    by_address = {one.address: one for one in by_id.values() if one.address}
    found = []
    for address, node in answers.items():
        known = by_id.get(node.id) if node else by_address.get(address)
        if known is not None:
            by_id.pop(known.node_id, None)
        revision = node.revision if node else known.revision if known else None
        found.append(
            NodeReport(
                node_id=node.id if node else known.node_id if known else "",
                address=address,
                answers=node is not None,
                behind=_behind(head, revision),
                node=node,
                reported_at_ms=known.reported_at_ms if known else 0,
            )
        )
    for one in by_id.values():
        behind = _behind(head, one.revision)
        found.append(NodeReport(one.node_id, "", False, behind, None, one.reported_at_ms))
    return found


def _behind(head: int | None, revision: int | None) -> int | None:
    return None if head is None or revision is None else max(0, head - revision)


async def _status(address: str, protection: protections.Protection) -> domain.Node | None:
    async with client.channel(address, protection=protection) as channel:
        try:
            return await inference.InferenceCalls(channel).status(ANSWER_S)
        except (errors.UnavailableError, errors.DeadlineError):
            return None


def _told(report: NodeReport) -> dict[str, Any]:
    """Flat: the node's own word beside the rest."""
    own = {field.name: None for field in dataclasses.fields(domain.Node) if field.name != "id"}
    said = {} if report.node is None else dataclasses.asdict(report.node)
    told = own | {name: value for name, value in said.items() if name in own}
    rest = {
        field.name: getattr(report, field.name)
        for field in dataclasses.fields(report)
        if field.name != "node"
    }
    return told | rest


def _show(found: list[NodeReport]) -> None:
    table = rich.table.Table("node", "address", "store", "cards", "answers", "waiting", "base")
    for report in found:
        node = report.node
        if node is None:
            # Without an address nobody can ask it.
            state = "no answer" if report.address else "said so to the store only"
            row = (_following(report), state, "-", "-", "-")
        else:
            cards = f"{len(node.resident)} of {len(node.served)} in memory"
            cards += f", {len(node.pinned)} pinned" if node.pinned else ""
            row = (
                _following(report),
                cards,
                f"{node.running} of {node.most_rows}",
                f"{node.waiting} of {node.queue}",
                node.base_model,
            )
        table.add_row(
            terminal.escape(report.node_id or "-"),
            terminal.escape(report.address or "-"),
            *map(terminal.escape, row),
        )
    terminal.RESULT.print(table)
    for report in found:
        for swap in report.node.swaps[-_SWAPS_SHOWN:] if report.node else ():
            terminal.RESULT.print(
                terminal.escape(
                    f"{report.address} took {swap.card} in: {swap.fetch_ms:.0f} ms to fetch, "
                    f"{swap.swap_ms:.0f} ms to swap"
                )
            )


def _following(report: NodeReport) -> str:
    if report.node is not None and not report.node.store_connected:
        return "not connected"
    if report.behind is None:
        return "unknown"
    return "follows" if not report.behind else f"{report.behind} behind"
