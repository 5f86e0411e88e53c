"""A card store without its servers: real files, a real database, hands to stage uploads with."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable

from services.card_store import blobs, commits, revisions, store
from services.card_store.catalogue import catalogue, schema
from shared.cards import format as formats
from tests import fakes


class House:
    """A store on real files and a real database, and hands to stage uploads with."""

    def __init__(
        self,
        root: pathlib.Path,
        files: blobs.BlobStore | None = None,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        self.root = root
        self.now_ms = 1234
        self._clock_ms = clock_ms or (lambda: self.now_ms)
        self.files = files or blobs.BlobStore(root)
        engine = schema.open_database(f"sqlite:///{root / 'catalogue.db'}")
        self.cards = catalogue.Catalogue(engine, self._clock_ms)
        self.cards.migrate()
        self.feed = revisions.RevisionFeed(self.cards.changes_after)
        self.store = self.store_with(self.cards)

    def store_with(
        self, cards: catalogue.Catalogue, verify: commits.Verify | None = None
    ) -> store.CardStore:
        return store.CardStore(
            self.files, cards, self.feed, self._clock_ms, lambda: "host:1", verify
        )

    def stage(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.files.stage(digest, len(data), [data])
        return digest

    def stage_card(self, name: str = "tiny", version: str = "1.0.0", seed: int = 0) -> str:
        return self.stage(formats.LoRAFormat.to_bytes(fakes.tiny_card(name, version, seed)))

    def staged(self) -> list[str]:
        return [path.name for path in (self.root / "staging").iterdir()]

    def close(self) -> None:
        self.store.close()
        self.cards.close()
