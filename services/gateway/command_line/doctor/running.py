"""The cluster that runs, or does not: its services, nodes, store, and whether it is up to date."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster, health, programs, supervision
from services.gateway.command_line import node_page
from services.gateway.command_line.doctor import findings
from shared import errors
from shared import settings as config
from shared.cards import keyring, signature
from shared.security import protection as protections

_ANSWER_S = 2.0
_CATCH_UP_S = 1.0
"""A node that is behind may be taking a card in just then."""
_NAMED = 3


def services(settings: config.Settings) -> Iterator[findings.Finding]:
    """Whether every service of the cluster answers."""
    supervisor = supervision.Supervisor(settings.cluster.state_dir.absolute())
    chosen = programs.of(settings)
    well = health.healthy(chosen, protections.Protection.configured(settings))
    silent = [program for program in chosen if program.name not in well]
    try:
        states = {state.name: state for state in supervisor.processes()}
    except errors.UnavailableError:
        if not well:
            yield findings.ok("services", "no cluster runs here; `make up` starts one")
            return
        states = {}
    for program in silent:
        state = states.get(program.name)
        how = f", its process is {state.state}: {state.reason}" if state and state.reason else ""
        how = how or (f", its process is {state.state}" if state else ", nobody here runs it")
        yield findings.error(
            "services",
            f"{program.name} at {program.address} does not answer{how}",
            f"see `skillmesh logs --service {program.name}`; `make up` starts what is stopped",
        )
    if not silent:
        yield findings.ok("services", f"all {len(chosen)} answer")


def freshness(
    settings: config.Settings, root: pathlib.Path = cluster.ROOT
) -> Iterator[findings.Finding]:
    """Whether all services run the code and the settings that are there now."""
    supervisor = supervision.Supervisor(settings.cluster.state_dir.absolute())
    try:
        states = [state for state in supervisor.processes() if state.pid]
    except errors.UnavailableError:
        return
    restart = "run `make down` and `make up`"
    folders = (root / "services", root / "shared")
    changed_s = max(path.stat().st_mtime for folder in folders for path in folder.rglob("*.py"))
    old = sorted(state.name for state in states if state.started_at_s < changed_s)
    if old and len(old) < len(states):
        text = f"services run different versions of the code: {', '.join(old)} the older one"
        yield findings.warning("versions", text, restart)
    elif old:
        text = "the code has changed since the services were started"
        yield findings.warning("versions", text, restart)
    else:
        yield findings.ok("versions", "all services run the code that is here")
    written = settings.cluster.state_dir.absolute() / "config.yaml"
    try:
        ours = cluster.Cluster(settings).settings.model_dump(mode="json")
        theirs = config.load(written).model_dump(mode="json")
    except errors.ConfigError as trouble:
        yield findings.warning(
            "settings", f"the running cluster's can't be read: {trouble}", restart
        )
        return
    if others := list(_different(ours, theirs)):
        text = f"the cluster was started with other settings: {', '.join(others[:_NAMED])}"
        yield findings.warning("settings", text, restart)
    else:
        yield findings.ok("settings", "the cluster runs with those of the configuration")


def _different(ours: Any, theirs: Any, key: str = "") -> Iterator[str]:
    """Keys whose values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours:
            yield from _different(ours[name], theirs.get(name), f"{key}.{name}" if key else name)
    elif ours != theirs:
        yield key


def nodes(settings: config.Settings) -> Iterator[findings.Finding]:
    """Whether the inference nodes follow the store, with one base model."""
    reports = asyncio.run(_reports(settings))
    alive = [(report, report.node) for report in reports if report.node is not None]
    if not alive:
        return
    for report, node in alive:
        where = report.address
        if not node.store_connected:
            yield findings.error(
                "nodes",
                f"{where} has lost the card store, and serves what it had",
                "see `skillmesh logs --service inference` and the check of discovery",
            )
        elif report.behind:
            yield findings.warning(
                "nodes",
                f"{where} lags {report.behind} revisions behind the store",
                "wait; if it stays so, see `skillmesh logs --service inference`",
            )
        else:
            held = f"{len(node.resident)} of {len(node.served)} cards in memory"
            yield findings.ok("nodes", f"{where} follows the store at {node.revision}, {held}")
    if len(bases := {node.base_model for _, node in alive}) > 1:
        yield findings.warning(
            "nodes",
            f"nodes run different base models: {', '.join(sorted(bases))}",
            "a card serves only on nodes of its own base model; start them with one configuration",
        )


async def _reports(settings: config.Settings) -> list[node_page.NodeReport]:
    reports = await node_page.reports(settings)
    if any(report.behind for report in reports):
        await asyncio.sleep(_CATCH_UP_S)
        reports = await node_page.reports(settings)
    return reports


def store(settings: config.Settings) -> Iterator[findings.Finding]:
    """Whether the store's cards are signed by trusted keys, and their files are there."""
    try:
        cards = asyncio.run(_signed(settings))
    except (errors.UnavailableError, TimeoutError):
        return  # What does not answer is told by `services`.
    if settings.security.require_signatures:
        yield _signatures(settings, cards)
    blobs = settings.state_path("card_store", "blobs").absolute()
    size = sum(card.size_bytes for card, _ in cards)
    text = f"versions of cards: {len(cards)}, {size / 1e6:,.1f} MB"
    here = [card for card, _ in cards if not card.is_remote]
    if settings.card_store.blobs_url or not blobs.is_dir():
        yield findings.ok("store", text)
        return
    gone = [card.reference[:60] for card in here if not (blobs / card.digest).is_file()]
    if gone:
        yield findings.error(
            "store",
            f"the files of {len(gone)} cards are not in {blobs}: {', '.join(gone[:_NAMED])}",
            "restore them from a backup (`store restore`), or delete the cards (`store delete`)",
        )
        return
    used = sum(path.stat().st_size for path in blobs.iterdir())
    yield findings.ok("store", f"{text}; its files take {used / 1e6:,.1f} MB")


def _signatures(
    settings: config.Settings, cards: list[tuple[domain.Card, str]]
) -> findings.Finding:
    trusted = keyring.Keyring(settings.keyring_path())
    faults = []
    for card, envelope in cards:
        statement = signature.Statement(card.name, card.version, card.digest, card.base_fingerprint)
        try:
            signature.verify(envelope, statement, trusted)
        except errors.UntrustedError as trouble:
            faults.append(str(trouble))
    if faults:
        text = f"{len(faults)} of {len(cards)} cards are not trusted: {'; '.join(faults[:_NAMED])}"
        remedy = "put their signers' keys into the keyring, or revoke the cards"
        return findings.error("signatures", text, remedy)
    if not cards:
        return findings.ok("signatures", "the store has no cards yet")
    return findings.ok("signatures", f"cards of the store signed by trusted keys: all {len(cards)}")


async def _signed(settings: config.Settings) -> list[tuple[domain.Card, str]]:
    async with peers.connected(settings) as connected:
        return await asyncio.wait_for(connected.store.signatures(), _ANSWER_S)
