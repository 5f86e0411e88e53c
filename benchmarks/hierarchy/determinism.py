"""Whether a snapshot answers the same again while others come: counts, no opinion.

Answers of one version to one question are compared with one another, and with what the model says
when nothing else runs. Meanwhile new versions of this agent and of another one come and go, and the
model's thread works for others between the tokens.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import torch

from benchmarks.hierarchy import stacks
from services.inference import engine as engines
from services.inference.agents import backend as backends
from shared import settings as config
from shared.cards import manifest as manifests
from shared.hierarchy import levels, stack
from shared.models import base as bases

_QUESTIONS = (
    "What is the capital of France?",
    "Who built it, and when?",
    "How tall is the tower in the old town?",
)
_TOKENS = 12
_SIZE = 0.1
"""Of the weights: every version says something else."""
_GENERATIONS_A_VERSION = 10


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was found."""

    generations: int
    versions: int
    """That answered."""
    updates: int
    """Versions of both agents that came while answers were generated."""
    steps: int
    """Of other work on the model, between tokens."""
    different: int
    """Generations that said something else than their version does when nothing else runs."""
    distinct: int
    """Answers to the first question that differ, over all versions."""


def counted(
    load: Callable[[], bases.BaseModel] = lambda: bases.load(bases.EMBEDDED),
    generations: int = 1000,
    ranks: dict[levels.Level, int] | None = None,
) -> Counts:
    """Generates that often, one answer at a time, so that every batch is the same.

    Args:
        load: gives the base model, a new one each time.
        generations: how many.
        ranks: of the layers; by default those of the hierarchy.
    """
    return asyncio.run(_counted(load, generations, ranks or dict(stacks.FULL_RANKS)))


async def _counted(
    load: Callable[[], bases.BaseModel], generations: int, ranks: dict[levels.Level, int]
) -> Counts:
    base = load()
    reference = manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=_TOKENS))
    backend = backends.LoRABackend(engine, reference, backends.BackendSettings(trajectory_share=0))
    model = load().model  # Bare, whatever stands in the engine's.
    engine.start()
    said: dict[tuple[int, int], collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    updates, steps, ended = 0, 0, False
    began = asyncio.Event()

    def made(version: int) -> stack.Stack:
        return stacks.stacked(model, version, ranks, size=_SIZE)

    async def update() -> None:
        nonlocal updates
        version = 1
        while not ended:
            await began.wait()
            began.clear()
            version += 1
            new = await asyncio.to_thread(made, version)
            await backend.publish("other", new)
            await backend.publish("agent", new)
            updates += 2

    def work(model: Any, _: Any) -> Generator[None, None, None]:
        nonlocal steps
        ids = torch.tensor([[1, 2, 3]])
        while not ended:
            model(input_ids=ids)
            steps += 1
            yield

    await backend.publish("agent", made(1))
    beside = [asyncio.create_task(update()), asyncio.create_task(engine.run_steps(work))]
    for number in range(generations):
        if number % _GENERATIONS_A_VERSION == 0:
            began.set()
        version, memory = backend.version("agent"), backend.compose("agent")
        at = number % len(_QUESTIONS)
        found = await engine.generate(_QUESTIONS[at], memory.key)
        said[version, at][found.answer] += 1
    ended = True
    began.set()
    await asyncio.gather(*beside)
    await engine.stop()
    expected = await _alone(load, said, made)
    different = sum(
        count
        for key, answers in said.items()
        for answer, count in answers.items()
        if answer != expected[key]
    )
    return Counts(
        generations=sum(answers.total() for answers in said.values()),
        versions=len({version for version, _ in said}),
        updates=updates,
        steps=steps,
        different=different,
        distinct=len({answer for (_, at), answer in expected.items() if at == 0}),
    )


async def _alone(
    load: Callable[[], bases.BaseModel],
    said: dict[tuple[int, int], collections.Counter[str]],
    made: Callable[[int], stack.Stack],
) -> dict[tuple[int, int], str]:
    """What each version says in an engine of its own, where nothing else happens."""
    base = load()
    reference = manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=_TOKENS))
    engine.start()
    expected = {}
    for version in sorted({version for version, _ in said}):
        key = f"alone@{version}"
        await engine.load_lora(made(version).to_card("alone", reference), key)
        for at in [at for one, at in said if one == version]:
            expected[version, at] = (await engine.generate(_QUESTIONS[at], key)).answer
        await engine.remove_lora(key)
    await engine.stop()
    return expected
