"""Cards that are published while the gateway is under load: small, of the embedded base, signed."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile

from benchmarks.engine import shapes
from benchmarks.store import cards as store_cards
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.models import base as bases
from shared.rpc import client

_PATIENCE_S = 120.0


def trusted(state_dir: pathlib.Path) -> None:
    """Has a cluster that is not started yet trust what is published here."""
    store_cards.SIGNER.publish(state_dir / "keyring")


def made(base: bases.BaseModel, count: int, size: float = 0.02) -> list[cards.LoRACard]:
    """Cards with random weights of a standard deviation: `card-000` and so on."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = shapes.make_cards(base.model, count, folder, dtype="float16", size=size)
        return [formats.LoRAFormat.from_bytes(card.file.read_bytes()) for card in found]


def version_of(card: cards.LoRACard, number: int) -> bytes:
    """The file of the same card as another version."""
    manifest = card.manifest.model_copy(update={"version": f"1.{number}.0"})
    return formats.LoRAFormat.to_bytes(cards.LoRACard(manifest, card.modules))


async def publish(settings: config.Settings, file: bytes) -> str:
    """Uploads and commits a card, over restarts of the store; its digest.

    Raises:
        errors.SkillmeshError: the store refuses it, or is not there for long.
    """
    store = settings.card_store

    async def attempt() -> str:
        [card] = await asyncio.to_thread(store_cards.upload, store.flight_address, [file])
        async with client.channel(store.address) as channel, client.typed_errors():
            await store_cards.commit(channel, card)
        return card.digest

    return await client.retried(attempt, _PATIENCE_S)
