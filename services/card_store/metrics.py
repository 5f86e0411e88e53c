"""The card store's figures for Prometheus: what it has, who follows it and how far."""

from __future__ import annotations

from collections.abc import Callable

from services.card_store import peers, residency, revisions
from services.card_store.catalogue import catalogue
from shared.telemetry import metrics

REVISION = metrics.gauge("skillmesh_store_revision", "Newest revision of the log")
CARDS = metrics.gauge("skillmesh_store_cards", "Cards on record, all versions")
DATASETS = metrics.gauge("skillmesh_store_datasets", "Datasets and snapshots on record")
BYTES = metrics.gauge("skillmesh_store_bytes", "Of the files of both")
WATCHERS = metrics.gauge("skillmesh_store_watchers", "Streams of the log that are open")
LAG = metrics.gauge(
    "skillmesh_watcher_lag_revisions",
    "Revisions of the log that a node has not applied, as it reports every few seconds",
    "node",
)
PEERS = metrics.gauge("skillmesh_store_peer_connected", "1 while a peer's log is followed", "peer")
MIRRORED = metrics.gauge("skillmesh_store_peer_cards", "Cards mirrored from a peer", "peer")
FAMILIES = (REVISION, CARDS, DATASETS, BYTES, WATCHERS, LAG, PEERS, MIRRORED)


def totals(cards: catalogue.Catalogue) -> metrics.Reader:
    """Reads the catalogue; blocks on the database, in the scrape's thread."""
    return metrics.Reader(
        {
            REVISION: lambda: cards.totals().revision,
            CARDS: lambda: cards.totals().cards,
            DATASETS: lambda: cards.totals().datasets,
            BYTES: lambda: cards.totals().size_bytes,
        }
    )


def followers(
    feed: revisions.RevisionFeed,
    nodes: residency.Residency,
    head: Callable[[], int],
    followed: peers.Peers | None,
) -> metrics.LoopReader:
    """Reads who follows, and whom this store follows.

    Args:
        feed: of the log.
        nodes: that report.
        head: the newest revision; a short read of the database.
        followed: peers, where there are some.
    """

    def lag() -> metrics.Values:
        newest = head()
        return {(one.node_id,): float(max(0, newest - one.revision)) for one in nodes.nodes()}

    def lines() -> list[peers.Line]:
        return [] if followed is None else list(followed.lines())

    return metrics.LoopReader(
        {
            WATCHERS: lambda: feed.watchers,
            LAG: lag,
            PEERS: lambda: {(one.store_id,): float(one.connected) for one in lines()},
            MIRRORED: lambda: {(one.store_id,): float(one.cards) for one in lines()},
        }
    )
