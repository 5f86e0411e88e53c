"""Cards for a catalogue without files."""

from __future__ import annotations

from typing import Any

from services.card_store import records


def digest_of(number: int) -> str:
    return f"{number:064x}"


def card(
    number: int, name: str = "sql", version: str | None = None, **changed: Any
) -> records.CardRecord:
    values: dict[str, Any] = {
        "name": name,
        "digest": digest_of(number),
        "version": version or f"{number}.0.0",
        "domain": "databases",
        "description": "",
        "base_fingerprint": "f" * 64,
        "size_bytes": 10,
        "created_at_ms": number,
        "manifest_json": "{}",
    }
    return records.CardRecord(**(values | changed))
