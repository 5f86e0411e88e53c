"""How long a decision takes, embedding included, on one core."""

from __future__ import annotations

import random
import statistics
import time

from benchmarks import results
from benchmarks.router import cores, intents, production, vectors
from services.router import router as routers

_QUESTIONS, _FIRST = 300, 20
_MOST_MS = 10.0
_NAMES = ("route_p50_ms", "route_p99_ms", "route_processor_ms", "route_known_p50_ms")


async def measure(data: intents.Intents, known: vectors.Vectors) -> list[results.Row]:
    """Asks questions that were never asked, then the same again.

    Args:
        data: its intents are the cards, its test questions are asked.
        known: vectors of the cards' examples; the questions are embedded for real.
    """
    texts = [text for text, _ in data.test] + list(data.foreign)
    asked = random.Random(0).sample(list(dict.fromkeys(texts)), _FIRST + _QUESTIONS)
    # An embedder of its own: none of these questions is in its cache.
    counting = production.CountingEmbedder()
    async with (
        production.embedder(lambda: counting) as embedder,
        production.router(embedder, data.train, known.embed, embedder.query) as router,
    ):
        for text in asked[:_FIRST]:
            await router.select(text)
        before = counting.embedded
        with cores.one() as note:
            began_s = time.process_time()
            first = [await _milliseconds(router, text) for text in asked[_FIRST:]]
            spent_s = time.process_time() - began_s
            embedded = counting.embedded - before
            again = [await _milliseconds(router, text) for text in asked[_FIRST:]]
    if embedded != _QUESTIONS:
        raise RuntimeError(f"{embedded} of {_QUESTIONS} questions were embedded")
    cards = f"{len(data.train)} cards of {intents.ALL} examples, {note}"
    p50, p99, processor, known_p50 = _NAMES
    return [
        results.Row(p50, statistics.median(first), "ms", most=_MOST_MS, note=cards),
        results.Row(p99, statistics.quantiles(first, n=100)[98], "ms", note=cards),
        results.Row(
            processor,
            spent_s * 1000 / _QUESTIONS,
            "ms",
            note="processor time of the same, mean: what else the machine does weighs less on it",
        ),
        results.Row(known_p50, statistics.median(again), "ms", note="the same questions again"),
    ]


def skipped(reason: str) -> list[results.Row]:
    """The rows where there are no cards to route to."""
    p50, *others = _NAMES
    return [
        results.Row(p50, None, "ms", most=_MOST_MS, note=reason),
        *(results.Row(name, None, "ms", note=reason) for name in others),
    ]


async def _milliseconds(router: routers.LoRARouter, text: str) -> float:
    began = time.perf_counter()
    await router.select(text)
    return (time.perf_counter() - began) * 1000
