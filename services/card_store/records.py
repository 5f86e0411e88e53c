"""What the card store speaks of: cards on record, changes, commits, the store's condition.

Plain frozen data: knows neither protobuf nor SQL nor files.
"""

from __future__ import annotations

import dataclasses
import enum

LATEST = "latest"
"""The alias that every published card takes over from the version before it."""


class CardState(enum.Enum):
    """Whether a card may be used."""

    ACTIVE = "ACTIVE"
    DELETED = "DELETED"
    """Taken out of service; its record stays as a tombstone."""
    REVOKED = "REVOKED"
    """Not to be trusted any more."""


@dataclasses.dataclass(frozen=True)
class CardRecord:
    """One committed card."""

    name: str
    digest: str
    """SHA-256 of the card's file in lower-case hex."""
    version: str
    domain: str
    description: str
    base_fingerprint: str
    """Of the base model that the card belongs to."""
    size_bytes: int
    created_at_ms: int
    """Unix time of the commit."""
    manifest_json: str
    aliases: tuple[str, ...] = ()
    """Aliases that point to this very digest now, sorted."""
    signature_json: str = ""
    """DSSE envelope over the digest; empty where the card is not signed."""
    signer: str = ""
    """Id of the key that signed it."""
    tenants: tuple[str, ...] = ()
    """Who may see it, sorted; empty: everybody."""
    state: CardState = CardState.ACTIVE
    traceparent: str = ""
    """Of the trace in which it was committed; part of no digest."""
    origin: str = ""
    """Id of the store where it was committed first; empty: this one."""
    remote: bool = False
    """Known from a peer's catalogue, while its bytes are not here."""


class ChangeKind(enum.Enum):
    """What a line of the revision log says."""

    HEARTBEAT = "HEARTBEAT"
    """Nothing new; never in the log itself."""
    CARD_PUBLISHED = "CARD_PUBLISHED"
    """A card was committed and took the alias `latest` of its name."""
    ALIAS_MOVED = "ALIAS_MOVED"
    """An alias points to another card than before."""
    CARD_DELETED = "CARD_DELETED"
    CARD_REVOKED = "CARD_REVOKED"
    KEY_REVOKED = "KEY_REVOKED"
    """Of no single card; CARD_REVOKED follows for each card of the key."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One line of the revision log."""

    kind: ChangeKind
    revision: int
    """Place in the log; of a heartbeat, the last revision that this watcher was sent."""
    card: CardRecord | None = None
    """The card as it stands when the change is read, aliases included."""
    alias: str = ""
    """The alias that moved."""
    key_id: str = ""
    """The key that was revoked."""
    at_us: int = 0
    """Unix time in microseconds when the log had it."""


@dataclasses.dataclass(frozen=True)
class Commit:
    """What a commit led to."""

    revision: int
    """Of the card's publication; for a dataset, the log's end."""
    created: bool
    """False when the digest was committed before."""
    record: CardRecord | None = None
    """The card; None for a dataset or a snapshot."""


@dataclasses.dataclass(frozen=True)
class AliasMove:
    """What setting an alias led to."""

    record: CardRecord
    """The card that the alias was set to."""
    revision: int
    """Of the move; the log's end where nothing moved."""
    moved: bool
    """False when the alias pointed there already or the same request came before."""


@dataclasses.dataclass(frozen=True)
class PastMove:
    """One line of an alias's history."""

    revision: int
    digest: str
    at_ms: int
    """Unix time."""


@dataclasses.dataclass(frozen=True)
class Retired:
    """What a deletion or revocation led to."""

    revision: int
    digests: tuple[str, ...]
    """The cards that are out of service by it."""
    changes: tuple[Change, ...]
    """Every line that it left in the log, in order."""


@dataclasses.dataclass(frozen=True)
class Query:
    """Which cards a listing is to have."""

    all_versions: bool = False
    """Otherwise only those that `latest` points to."""
    page_size: int = 0
    """0: everything."""
    page_token: str = ""
    """Where the page before ended."""
    text: str = ""
    """Words that name, domain, description or example questions must have."""
    name: str = ""
    domain: str = ""
    base_fingerprint: str = ""
    tenants: frozenset[str] | None = None
    """Whose cards besides everybody's; None: all."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """Cards as of one revision."""

    cards: tuple[CardRecord, ...]
    revision: int
    """Watching from here misses nothing and repeats nothing."""
    next_page_token: str = ""
    """Empty: this was the last page."""
    revoked_keys: tuple[str, ...] = ()
    """Ids of the signers' keys that are not to be trusted, sorted; on the first page alone."""


@dataclasses.dataclass(frozen=True)
class NodeResidency:
    """What one node said that it holds."""

    node_id: str
    base_fingerprint: str
    revision: int
    """The last that it has applied."""
    digests: tuple[str, ...]
    """Of the cards that requests may choose there."""
    reported_at_ms: int
    """Unix time."""
    address: str = ""
    """`host:port` where it answers; empty where it does not say."""


@dataclasses.dataclass(frozen=True)
class Totals:
    """What the catalogue holds."""

    revision: int
    cards: int
    datasets: int
    size_bytes: int
    """Of all committed files."""
    oldest_revision: int = 0
    """A watch can begin here or later."""


@dataclasses.dataclass(frozen=True)
class PeerCursor:
    """How far a peer was followed."""

    control: str
    """`host:port` of its control plane."""
    revision: int
    """Of its log, the last that was mirrored."""
    flight: str = ""
    """`host:port` of its data plane; empty while the peer can't be reached."""


@dataclasses.dataclass(frozen=True)
class Status:
    """The store's condition."""

    store_id: str
    totals: Totals
    flight_address: str
    """`host:port` of the data plane; empty while it has not told its port."""
    watchers: int
