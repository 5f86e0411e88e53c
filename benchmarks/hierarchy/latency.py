"""What the full stack costs while answers are generated: the engine with it, over without."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
from collections.abc import Callable

import torch

from benchmarks import results
from benchmarks.engine import shapes, timing
from benchmarks.hierarchy import stacks
from services.inference import engine as engines
from services.inference.agents import backend as backends
from shared import settings as config
from shared.cards import manifest as manifests
from shared.hierarchy import stack
from shared.models import base as bases

_QUESTION = "What is the capital of France, and who built the oldest bridge in it?"
_AGENT = "agent"
_SIZE = 0.02
"""Of the weights, as trained ones have it."""
_TOKENS, _ROUNDS = 16, 8


def rows(batches: tuple[int, ...] = (1,), rounds: int = _ROUNDS) -> list[results.Row]:
    """Of the shape of Qwen2.5-0.5B in float32, one thread.

    Args:
        batches: numbers of answers that are generated together; the first is the one with a target.
        rounds: of each, with the stack and without in turn.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measured(_base(torch.float32), batches, rounds)
    finally:
        torch.set_num_threads(threads)


def measured(base: bases.BaseModel, batches: tuple[int, ...], rounds: int) -> list[results.Row]:
    """Medians of each round's ratio, and the stack's share of the base's parameters."""
    made = stacks.stacked(base.model, ranks=stacks.FULL_RANKS, size=_SIZE)
    share = sum(one.size for one in made.composed().values()) / base.model.num_parameters()
    taken = asyncio.run(_taken(base, made, batches, rounds))
    found = []
    for batch, (bare, full) in taken.items():
        is_first = batch == batches[0]
        found.append(
            results.Row(
                "latency_times_base" if is_first else f"latency_times_base_b{batch}",
                statistics.median(b / a for a, b in zip(bare, full, strict=True)),
                "times bare",
                most=1.2 if is_first else None,
                note=f"{_TOKENS} tokens, prompt included: bare {statistics.median(bare):.0f} ms, "
                f"full stack {statistics.median(full):.0f} ms",
            )
        )
    return [*found, results.Row("adapters_of_base", share, "of the parameters", most=0.05)]


async def _taken(
    base: bases.BaseModel, made: stack.Stack, batches: tuple[int, ...], rounds: int
) -> dict[int, list[list[float]]]:
    settings = config.Inference(max_new_tokens=_TOKENS, threads=torch.get_num_threads())
    engine = engines.ArrowEngine(base, settings)
    reference = manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )
    backend = backends.LoRABackend(engine, reference, backends.BackendSettings(trajectory_share=0))
    engine.start()
    loop = asyncio.get_running_loop()
    try:
        await backend.publish(_AGENT, made)

        async def answers(batch: int, key: str | None) -> None:
            found = await asyncio.gather(*[engine.generate(_QUESTION, key) for _ in range(batch)])
            if {one.new_tokens for one in found} != {_TOKENS}:
                raise RuntimeError("answers ended early: they can't be compared")

        def waited(batch: int, key: str | None) -> Callable[[], None]:
            return lambda: asyncio.run_coroutine_threadsafe(answers(batch, key), loop).result()

        key = backend.compose(_AGENT).key
        return {
            batch: await asyncio.to_thread(
                timing.in_turn, rounds, waited(batch, None), waited(batch, key)
            )
            for batch in batches
        }
    finally:
        await engine.stop()


def _base(dtype: torch.dtype) -> bases.BaseModel:
    """Random weights, and the embedded base's tokenizer, whose tokens they have."""
    embedded = bases.load(bases.EMBEDDED)
    model = shapes.qwen(dtype)
    return dataclasses.replace(
        embedded, id="qwen-shape", model=model, fingerprint=bases.fingerprint(model)
    )
