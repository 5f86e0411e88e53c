"""What the full stack costs while answers are generated: the node's batch with it, over without.

Token by token and prompt by prompt in turn, so that a machine that slows down weighs on both.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import torch

from benchmarks import results
from benchmarks.engine import shapes, timing
from benchmarks.hierarchy import stacks
from services.inference import batch, certainties, sampling
from shared.cards import manifest as manifests
from shared.lora import manager as managers
from shared.models import base as bases

_QUESTION = "What is the capital of France, and who built the oldest bridge in it?"
_KEY = "agent@1"
_SIZE = 0.02
"""Of the weights, as trained ones have it."""
_TOKENS, _PROMPTS = 48, 6


def rows(batches: Sequence[int] = (1,)) -> list[results.Row]:
    """Of the shape of Qwen2.5-0.5B in float32, one thread.

    Args:
        batches: numbers of answers that are generated together; the first is the one with a target.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measured(_base(torch.float32), batches)
    finally:
        torch.set_num_threads(threads)


def measured(
    base: bases.BaseModel,
    batches: Sequence[int],
    tokens: int = _TOKENS,
    prompts: int = _PROMPTS,
) -> list[results.Row]:
    """Medians of each turn's ratio, and the stack's share of the base's parameters."""
    made = stacks.stacked(base.model, ranks=stacks.FULL_RANKS, size=_SIZE)
    share = sum(one.size for one in made.composed().values()) / base.model.num_parameters()
    reference = manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )
    dtype = str(base.model.dtype).removeprefix("torch.")
    manager = managers.LoRAManager(base.model, base.fingerprint)
    manager.apply_card(made.to_card("agent", reference, dtype), _KEY)
    prompt = base.prompt_ids(_QUESTION)

    def joined(card: str | None, count: int) -> batch.Batch:
        answers = batch.Batch(base.model, manager)
        answers.join([_row(card) for _ in range(count)], [prompt] * count)
        return answers

    found = []
    try:
        for count in batches:
            bare, full = joined(None, count), joined(_KEY, count)
            name = "latency_times_base" if count == batches[0] else f"latency_times_base_b{count}"
            most = 1.2 if count == batches[0] else None
            what = f"a token of each of {count} answers"
            taken = timing.in_turn(tokens, bare.step, full.step)
            found.append(_ratio(name, taken, most, what))
            taken = timing.in_turn(
                prompts,
                lambda count=count: joined(None, count),  # type: ignore[misc]
                lambda count=count: joined(_KEY, count),  # type: ignore[misc]
            )
            what = f"{count} prompts of {len(prompt)} tokens"
            found.append(_ratio(name.replace("latency", "prompt"), taken, None, what))
    finally:
        manager.remove_card(_KEY)
    return [*found, results.Row("adapters_of_base", share, "of the parameters", most=0.05)]


def _ratio(
    name: str, taken: Sequence[Sequence[float]], most: float | None, what: str
) -> results.Row:
    bare, full = taken
    return results.Row(
        name,
        statistics.median(b / a for a, b in zip(bare, full, strict=True)),
        "times bare",
        most=most,
        note=f"{what}: bare {statistics.median(bare):.1f} ms, "
        f"full stack {statistics.median(full):.1f} ms",
    )


def _row(card: str | None) -> batch.Row:
    """As the engine makes it: how sure the model is counts with a memory and without."""
    return batch.Row(card, sampling.Sampler(sampling.GREEDY), certainty=certainties.Certainty())


def _base(dtype: torch.dtype) -> bases.BaseModel:
    """Random weights, and the embedded base's tokenizer, whose tokens they have."""
    embedded = bases.load(bases.EMBEDDED)
    model = shapes.qwen(dtype)
    return dataclasses.replace(
        embedded, id="qwen-shape", model=model, fingerprint=bases.fingerprint(model)
    )
