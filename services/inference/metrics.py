"""A node's figures for Prometheus: answers, queue, cards in memory, swaps."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

from prometheus_client import core, registry

from services.inference import evolution, metered, swaps
from shared import settings as config
from shared.telemetry import following, metrics

TOKENS_IN = metrics.counter(
    "skillmesh_prompt_tokens", "Tokens of prompts that were answered", "answered_by"
)
TOKENS_OUT = metrics.counter(
    "skillmesh_generated_tokens", "Tokens of answers, by card or base", "answered_by"
)
FIRST = metrics.histogram(
    "skillmesh_time_to_first_token_seconds",
    "From a request at the engine to its first text, waiting included",
    metrics.SHORT_S,
)
BETWEEN = metrics.histogram(
    "skillmesh_inter_token_seconds",
    "From one token of an answer to the next, the mean of each answer",
    metrics.SHORT_S,
)
ROWS = metrics.gauge("skillmesh_batch_rows", "Answers that are generated together")
MOST_ROWS = metrics.gauge("skillmesh_batch_rows_limit", "inference.batch_rows")
WAITING = metrics.gauge("skillmesh_queue_waiting", "Requests that wait for their turn or card")
MOST_WAITING = metrics.gauge("skillmesh_queue_limit", "inference.queue: more are refused")
SERVED = metrics.gauge("skillmesh_cards_served", "Cards that requests may choose")
RESIDENT = metrics.gauge("skillmesh_cards_resident", "Cards in the model's memory")
IN_MEMORY = metrics.gauge(
    "skillmesh_card_resident", "1 for each card in memory; the others are left out", "card"
)
HELD = metrics.gauge("skillmesh_cards_held_bytes", "Memory that the resident cards hold")
BUDGET = metrics.gauge("skillmesh_cards_limit_bytes", "inference.card_memory_mib")
FETCH = metrics.histogram(
    "skillmesh_card_fetch_seconds",
    "From the news of a card to its file being here and checked",
    metrics.SHORT_S,
)
SWAP = metrics.histogram(
    "skillmesh_card_swap_seconds", "From then until requests could choose it", metrics.SHORT_S
)
SAMPLED = metrics.counter(
    "skillmesh_semantic_sampled", "Answers that were sampled anew to see whether they mean the same"
)
NOT_SAMPLED = metrics.counter(
    "skillmesh_semantic_dropped", "Answers that were not, as the node was busy"
)
_OBSERVED = (TOKENS_IN, TOKENS_OUT, FIRST, BETWEEN, FETCH, SWAP)
FAMILIES = (
    *_OBSERVED,
    *(ROWS, MOST_ROWS, WAITING, MOST_WAITING, SERVED, RESIDENT, IN_MEMORY, HELD, BUDGET),
    *(SAMPLED, NOT_SAMPLED),
    *following.FAMILIES,
)


class Answers(registry.Collector):
    """Takes the times of answers and swaps."""

    def __init__(self) -> None:
        """Begins with none."""
        self._tokens_in, self._tokens_out = TOKENS_IN.counter(), TOKENS_OUT.counter()
        self._first, self._between = FIRST.histogram(), BETWEEN.histogram()
        self._fetch, self._swap = FETCH.histogram(), SWAP.histogram()

    def observe(self, timing: metered.Timing) -> None:
        """Takes one answer's."""
        answered_by = "base" if timing.card is None else "card"
        self._tokens_in.labels(answered_by).inc(timing.prompt_tokens)
        self._tokens_out.labels(answered_by).inc(timing.new_tokens)
        self._first.observe(timing.first_s)
        if timing.between_s is not None:
            self._between.observe(timing.between_s)

    def swapped(self, swap: swaps.SwapRecord) -> None:
        """Takes one card's."""
        self._fetch.observe(swap.fetch_ms / 1000)
        self._swap.observe(swap.swap_ms / 1000)

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All of them."""
        for one in (self._tokens_in, self._tokens_out):
            yield from one.collect()
        for each in (self._first, self._between, self._fetch, self._swap):
            yield from each.collect()


def reader(
    engine: metered.MeteredEngine, attached: evolution.Evolution, settings: config.Inference
) -> metrics.LoopReader:
    """Reads what engine and cards say of themselves."""

    def in_memory() -> metrics.Values:
        names = collections.Counter(key.partition("@")[0] for key in engine.resident())
        return {(name,): 1.0 for name in names}

    return metrics.LoopReader(
        {
            ROWS: lambda: engine.load.running,
            MOST_ROWS: lambda: settings.batch_rows,
            WAITING: lambda: engine.waiting,
            MOST_WAITING: lambda: settings.queue,
            SERVED: lambda: len(engine.served()),
            RESIDENT: lambda: len(engine.resident()),
            IN_MEMORY: in_memory,
            HELD: lambda: engine.held_bytes,
            BUDGET: lambda: settings.card_memory_mib * 2**20,
            SAMPLED: lambda: attached.semantic.sampled,
            NOT_SAMPLED: lambda: attached.semantic.dropped,
            **following.reads(attached.cards),
        }
    )
