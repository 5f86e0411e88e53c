"""What a catalogue of 100,000 cards costs: start, a page, a search, a promotion."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

from benchmarks import results
from benchmarks.store import cards, filling, processes
from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client

CARDS = 100_000
_ROUNDS = 30
_SUBJECTS = ("tariffs", "valves", "ferries", "orchids", "ledgers", "glaciers", "violins", "kilns")
_PLACES = ("Skarn", "Tarnock", "Brennholt", "Quillhaven", "Ostrava", "Lindow", "Merrow", "Veld")


def measure() -> list[results.Row]:
    """Fills a catalogue in bulk, starts the store on it and asks it over gRPC."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _fill(folder / "card_store")
        started = []
        for _ in range(3):
            with processes.store(folder) as store:
                started.append(store.control.listens_after_s)
        with processes.store(folder) as store:
            rows = asyncio.run(_asked(store.address))
    note = "from the process's start to its port, Python's imports included; median of 3"
    return [
        results.Row("start_100k_s", statistics.median(started), "s", most=2.0, note=note),
        *rows,
    ]


def _fill(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True)
    opened = catalogue.Catalogue(schema.open_database(f"sqlite:///{folder / 'catalogue.db'}"))
    opened.migrate()
    filling.add_many(opened, (_record(number) for number in range(CARDS)))
    opened.close()


def _record(number: int) -> records.CardRecord:
    subject, place = _SUBJECTS[number % 8], _PLACES[number // 8 % 8]
    name = f"{subject}-{place.lower()}-{number}"
    return records.CardRecord(
        name=name,
        digest=hashlib.sha256(name.encode()).hexdigest(),
        version="1.0.0",
        domain=f"domain-{number % 200}",
        description=f"What the {subject} of {place} number {number} are about",
        base_fingerprint="f" * 64,
        size_bytes=300_000,
        created_at_ms=1_700_000_000_000 + number,
        manifest_json=cards.manifest(name, "f" * 64, ("q_proj",)).to_json(),
    )


async def _asked(address: str) -> list[results.Row]:
    async with client.channel(address) as channel:
        stub = cards_pb2_grpc.CardStoreStub(channel)
        token = ""
        for _ in range(20):  # Somewhere within.
            request = cards_pb2.ListCardsRequest(page_size=100, page_token=token)
            token = (await stub.ListCards(request, timeout=30)).next_page_token
        words = itertools.cycle(f"{s} {p} {n}" for s in _SUBJECTS for p in _PLACES for n in (1, 7))
        rare = itertools.count(5_000, 321)
        promoted = itertools.count(10, 10)

        async def page() -> None:
            await stub.ListCards(
                cards_pb2.ListCardsRequest(page_size=100, page_token=token), timeout=30
            )

        async def search() -> None:
            await stub.ListCards(
                cards_pb2.ListCardsRequest(page_size=20, text=next(words)), timeout=30
            )

        async def search_common() -> None:
            await stub.ListCards(
                cards_pb2.ListCardsRequest(page_size=20, text="orchids of brennholt"), timeout=30
            )

        async def search_rare() -> None:
            text = f"number {next(rare)}"
            await stub.ListCards(cards_pb2.ListCardsRequest(page_size=20, text=text), timeout=30)

        async def domain() -> None:
            await stub.ListCards(
                cards_pb2.ListCardsRequest(page_size=100, domain="domain-17"), timeout=30
            )

        async def promote() -> None:
            record = _record(next(promoted))
            await stub.SetAlias(
                cards_pb2.SetAliasRequest(
                    name=record.name, alias="production", digest=record.digest
                ),
                timeout=30,
            )

        return [
            await _timed("list_page_100k_ms", page, 50, "100 cards, from card 2,000 on"),
            await _timed("search_100k_ms", search, 50, "three words, 20 cards"),
            await _timed(
                "search_common_100k_ms", search_common, None, "1,600 cards have the words"
            ),
            await _timed("search_rare_100k_ms", search_rare, None, "few cards have the words"),
            await _timed("list_domain_100k_ms", domain, None, "100 of a domain's 500 cards"),
            await _timed("promote_100k_ms", promote, None, "on disk"),
        ]


async def _timed(
    name: str, work: Callable[[], Awaitable[None]], most: float | None, note: str
) -> results.Row:
    await work()
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began) * 1000)
    return results.Row(name, statistics.median(taken), "ms", most=most, note=note)
