"""Settings of the card store: where it listens, where it keeps what, and for how long."""

from __future__ import annotations

import pydantic

from shared import sections


class Retention(sections.Section):
    """What may be deleted in time; by default nothing. An alias keeps what it points to."""

    keep_versions: int = pydantic.Field(default=0, ge=0)
    """The newest versions of a name stay, so many; 0: all."""
    keep_days: float = pydantic.Field(default=0.0, ge=0)
    """Versions younger than this stay however many there are."""
    datasets_days: float = pydantic.Field(default=0.0, ge=0)
    """Datasets of no card in service stay so long; 0: for ever."""


class CardStore(sections.Section):
    """Keeps and publishes cards."""

    address: sections.Address = "127.0.0.1:7405"
    """Where the control plane (gRPC) listens."""
    flight_address: sections.Address = "127.0.0.1:7406"
    """Where the data plane (Arrow Flight) listens."""
    database_url: str = ""
    """SQLAlchemy URL of the catalogue; empty for SQLite in the state folder."""
    largest_upload_bytes: sections.Count = 256 * 1024 * 1024
    """Larger uploads are refused."""
    blobs_url: str = ""
    """Where committed files are kept, such as s3://bucket/folder?region=NAME; empty for the state
    folder."""
    blob_cache_mib: sections.Count = 10_240
    """What the state folder holds of files whose place is `blobs_url`."""
    retention: Retention = Retention()
    """What may be deleted in time."""
    maintenance_hours: float = pydantic.Field(default=24.0, ge=0)
    """How often retention, garbage and the log are seen to; 0: only when an operator asks."""
    log_lines: sections.Count = 100_000
    """Lines of the revision log that stay; a node that was away for longer lists anew."""
    garbage_hours: sections.Positive = 24.0
    """Files that no record needs stay so long."""
