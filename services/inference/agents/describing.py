"""What is to be told of a node's agents."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics

import torch

from services.inference.agents import agents, feedback, ledger, roster
from shared.hierarchy import layer, levels, spectrum, weights


@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """One of an agent's own layers."""

    level: levels.Level
    rank: int
    entropy: float
    """Of the singular values, in nats: mean over the modules that hold something."""
    norm: float
    """Frobenius, of the products A B."""
    screened_share: float
    """Of the parameters, 0 to 1."""


@dataclasses.dataclass(frozen=True)
class Described:
    """One agent."""

    record: ledger.Record
    memory: str
    """`AGENT@VERSION`; empty where it is on disk alone."""
    snapshot_version: int
    queued: int
    last_sequence: int
    layers: tuple[LayerFacts, ...]
    trajectories: int
    hit_rate: float
    circuits_moved: int
    connected: bool
    given_up_count: int
    refused: str
    given_up: tuple[feedback.GivenUp, ...] = ()
    """The latest of them, where one agent was asked for."""


async def one(own: agents.Agents, agent: str) -> Described:
    """An agent, brought into memory for it.

    Raises:
        errors.NotFoundError: no such agent is here.
    """
    held = await own.held(agent)
    counts = await own.queued(), await own.given_up_counts()
    found = await _described(own, own.record(agent), held, *counts)
    return dataclasses.replace(found, given_up=tuple(await own.given_up(agent)))


async def every(own: agents.Agents) -> list[Described]:
    """All agents; of those that are on disk alone only what their record says."""
    counts = await own.queued(), await own.given_up_counts()
    return [
        await _described(own, record, own.in_memory(record.agent), *counts)
        for record in own.records()
    ]


async def _described(
    own: agents.Agents,
    record: ledger.Record,
    held: roster.Held | None,
    queued: dict[str, int],
    given_up: dict[str, int],
) -> Described:
    layers: tuple[LayerFacts, ...] = ()
    if held is not None:
        async with held.lock:
            layers = await asyncio.to_thread(
                lambda: tuple(_facts(held.layers.layers[level]) for level in levels.PRIVATE)
            )
    within = 0 if held is None else held.layers.queue.stats.moved
    return Described(
        record=record,
        memory=own.memory(record.agent),
        snapshot_version=own.snapshot_version,
        queued=queued.get(record.agent, 0),
        last_sequence=record.settled if held is None else held.layers.sequence,
        layers=layers,
        trajectories=0 if held is None else len(held.layers.cache),
        hit_rate=0.0 if held is None else held.layers.cache.hit_rate(),
        circuits_moved=record.moved + within,
        connected=own.connected,
        given_up_count=given_up.get(record.agent, 0),
        refused=own.refused(record.agent),
    )


def _facts(own: layer.DynamicLoRALayer) -> LayerFacts:
    entropies = [
        float(spectrum.entropy(spectrum.singular_values(one.a[None], one.b[None]))[0])
        for one in own.weights.values()
        if bool(one.b.any())
    ]
    phases = [side for one in own.phases().values() for side in (one.a, one.b)]
    screened = sum(int(torch.count_nonzero(side)) for side in phases)
    return LayerFacts(
        level=own.level,
        rank=own.spec.rank,
        entropy=statistics.fmean(entropies) if entropies else 0.0,
        norm=weights.norm(own.weights),
        screened_share=screened / sum(side.numel() for side in phases),
    )
