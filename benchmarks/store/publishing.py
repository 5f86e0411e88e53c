"""From a publication to its watchers, and to the card being served on every node."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from typing import Any

from benchmarks import results
from benchmarks.engine import shapes
from benchmarks.store import cards, processes
from shared.models import base as bases
from shared.pb import cards_pb2, cards_pb2_grpc, inference_pb2, inference_pb2_grpc
from shared.rpc import client

_NODES, _PUBLISHED = 3, 40
_WATCHED = 20
_WATCHERS = (1, 50, 500)
_PAUSE_S = 0.1
_READY_S = 120.0


def served() -> list[results.Row]:
    """Publish to swapped in on every one of three nodes of the embedded base."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base = bases.load(bases.EMBEDDED)
        made = shapes.make_cards(base.model, _PUBLISHED, folder, shapes.ALL_SEVEN, dtype="float16")
        del base
        files = [card.file.read_bytes() for card in made]
        with (
            processes.store(folder / "store") as store,
            processes.nodes(folder, _NODES, store.address) as nodes,
        ):
            taken = asyncio.run(_until_served(store, nodes, files))
    note = f"{_NODES} nodes, {len(taken)} cards of {len(files[0]):,} bytes, from the commit's call"
    return [
        _row("publish_to_served_p50_ms", statistics.median(taken), 250, note),
        _row("publish_to_served_p99_ms", _percentile(taken, 0.99), 1000, note),
    ]


async def _until_served(
    store: processes.Store, nodes: list[str], files: list[bytes]
) -> list[float]:
    uploaded = await asyncio.to_thread(cards.upload, store.flight_address, files)
    taken: dict[str, float] = {}
    async with contextlib.AsyncExitStack() as stack:
        control = await stack.enter_async_context(client.channel(store.address))
        stubs: list[Any] = [
            inference_pb2_grpc.InferenceStub(
                await stack.enter_async_context(client.channel(address))
            )
            for address in nodes
        ]
        await _all(stubs, lambda status: status.store_connected)
        for card in uploaded:
            began_ms = time.time() * 1000
            await cards.commit(control, card)
            await asyncio.sleep(_PAUSE_S)
            found = functools.partial(_swapped_at, digest=card.digest)
            taken[card.digest] = max(await _all(stubs, found)) - began_ms
    return list(taken.values())


async def _all(stubs: list[Any], found: Any) -> list[Any]:
    """What is found in the status of each node, once it is found in all."""
    deadline = time.monotonic() + _READY_S
    while True:
        request = inference_pb2.GetNodeStatusRequest()
        statuses = await asyncio.gather(
            *[stub.GetNodeStatus(request, timeout=10) for stub in stubs]
        )
        answers = [found(status) for status in statuses]
        if all(answers):
            return answers
        if time.monotonic() > deadline:
            raise RuntimeError("not every node came so far in two minutes")
        await asyncio.sleep(_PAUSE_S)


def _swapped_at(status: inference_pb2.NodeStatus, digest: str) -> int:
    return max((swap.at_ms for swap in status.swaps if swap.card.endswith(digest)), default=0)


def notified() -> list[results.Row]:
    """From the log, and from the commit's call, to notified; over all watchers and cards."""
    rows = []
    for count in _WATCHERS:
        with tempfile.TemporaryDirectory() as name, processes.store(pathlib.Path(name)) as store:
            files = [cards.of_size(f"card-{number}", 0) for number in range(_WATCHED)]
            heard, published = _until_notified(store, files, count)
        note = f"{len(files)} cards, a connection a watcher"
        most = 30 if count == 500 else None
        since_log, since_call = f"{note}, since the log had it", f"{note}, since the commit's call"
        rows += [
            _row(f"watch_{count}_p50_ms", statistics.median(heard), most, since_log),
            _row(f"watch_{count}_p99_ms", _percentile(heard, 0.99), None, since_log),
            _row(
                f"publish_to_notified_{count}_p50_ms",
                statistics.median(published),
                None,
                since_call,
            ),
            _row(
                f"publish_to_notified_{count}_p99_ms",
                _percentile(published, 0.99),
                None,
                since_call,
            ),
        ]
    return rows


def _until_notified(
    store: processes.Store, files: list[bytes], count: int
) -> tuple[list[float], list[float]]:
    """Milliseconds since the log had each card, and since its commit was called."""
    uploaded = cards.upload(store.flight_address, files)
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    watching = context.Process(target=_watch, args=(store.address, count, len(files), theirs))
    watching.start()
    try:
        mine.recv()  # All of them have been greeted.
        began = asyncio.run(_publish(store.address, uploaded))
        heard: list[tuple[str, float, float]] = mine.recv()
    finally:
        watching.join()
    return (
        [(at - logged) * 1000 for _, logged, at in heard],
        [(at - began[digest]) * 1000 for digest, _, at in heard],
    )


async def _publish(address: str, uploaded: list[cards.Uploaded]) -> dict[str, float]:
    began = {}
    async with client.channel(address) as channel:
        for card in uploaded:
            began[card.digest] = time.time()
            await cards.commit(channel, card)
            await asyncio.sleep(_PAUSE_S)
    return began


def _watch(address: str, count: int, changes: int, pipe: Any) -> None:
    """In a process of its own: watches and tells when each heard of what."""
    asyncio.run(_watch_all(address, count, changes, pipe))


async def _watch_all(address: str, count: int, changes: int, pipe: Any) -> None:
    greeted = asyncio.Semaphore(0)

    async def one() -> list[tuple[str, float, float]]:
        heard: list[tuple[str, float, float]] = []
        async with client.channel(address) as channel:
            call = cards_pb2_grpc.CardStoreStub(channel).Watch(cards_pb2.WatchRequest())
            is_new = True
            async for change in call:
                at = time.time()
                if is_new:
                    is_new = False
                    greeted.release()
                if change.kind == cards_pb2.CARD_PUBLISHED:
                    heard.append((change.card.digest, change.at_us / 1e6, at))
                    if len(heard) == changes:
                        break
        return heard

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    for _ in tasks:
        await greeted.acquire()
    pipe.send("greeted")
    pipe.send([entry for heard in await asyncio.gather(*tasks) for entry in heard])


def commits() -> list[results.Row]:
    """Upload and commit of small cards, one after another."""
    with tempfile.TemporaryDirectory() as name, processes.store(pathlib.Path(name)) as store:
        files = [cards.of_size(f"card-{number}", 0) for number in range(100)]
        began = time.perf_counter()
        uploaded = cards.upload(store.flight_address, files)
        then = time.perf_counter()
        asyncio.run(_commit_all(store.address, uploaded))
        ended = time.perf_counter()
    note = f"{len(files)} cards of {len(files[0]):,} bytes, one after another, each on disk"
    return [
        results.Row("uploads_per_s", len(files) / (then - began), "cards/s", note=note),
        results.Row("commits_per_s", len(files) / (ended - then), "cards/s", note=note),
    ]


async def _commit_all(address: str, uploaded: list[cards.Uploaded]) -> None:
    async with client.channel(address) as channel:
        for card in uploaded:
            await cards.commit(channel, card)


def _row(name: str, value: float, most: float | None, note: str) -> results.Row:
    return results.Row(name, value, "ms", most=most, note=note)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
