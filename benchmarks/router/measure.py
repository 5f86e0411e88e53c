"""Everything in the area, in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from benchmarks import results
from benchmarks.router import intents, latency, peers, plots, production, scale, vectors
from benchmarks.router import rows as figures
from services.router import embedding
from shared import errors, terminal


def measure() -> list[results.Row]:
    """Takes some ten minutes, three of them for vectors that later runs find on disk."""
    return asyncio.run(_measure())


async def _measure() -> list[results.Row]:
    async with production.embedder() as embedder:
        path = results.KEPT / "vectors" / f"{production.EMBEDDER_ID}.npz"
        known = vectors.Vectors(path, embedder.embed)
        data: intents.Intents | None = None
        try:
            data = intents.load(os.environ.get(intents.VARIABLE))
        except errors.ConfigError as error:
            rows = figures.of([], "", str(error)) + latency.skipped(str(error))
        else:
            trials = intents.trials(data)
            texts = [text for trial in trials for text in trial.texts]
            _tell("vectors of the questions")
            await known.check(texts)
            await known.embed(texts)
            _tell("time of a decision")
            timed = await latency.measure(data, known)
            tried, peer = await _tried(trials, embedder, known)
            results.FOLDER.mkdir(exist_ok=True)
            plots.reliability(results.FOLDER / "router_reliability.png", tried)
            plots.roc(results.FOLDER / "router_roc.png", tried)
            rows = figures.of(tried, peer) + timed
        _tell("many cards")
        return rows + await scale.measure(embedder, known, data)


async def _tried(
    trials: Sequence[intents.Trial],
    embedder: embedding.Embedding,
    known: vectors.Vectors,
) -> tuple[list[figures.Tried], str]:
    """All trials, the peer's on the other core meanwhile, and how the peer is called."""
    asking = asyncio.create_task(asyncio.to_thread(peers.semantic_router, trials, known.of))
    routed, centroids = [], []
    for number, trial in enumerate(trials, 1):
        what = "near misses" if trial.near else "out of scope"
        _tell(f"{trial.examples} examples a card, {what}: trial {number} of {len(trials)}")
        async with production.router(embedder, trial.cards, known.embed, known.query) as router:
            routed.append(await production.answers(router, trial))
        centroids.append(peers.centroid(trial, known.of))
    _tell("semantic-router")
    answered = await asking
    tried = zip(trials, routed, answered.outcomes, centroids, strict=True)
    return [figures.Tried(*one) for one in tried], answered.name


def _tell(what: str) -> None:
    terminal.NOTES.print(f"router: {what}")
