"""A backend on an engine with a tiny model, and what it must answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import torch

from services.inference import engine as engines
from services.inference import generations
from services.inference.agents import backend as backends
from shared import settings as config
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.hierarchy import stack
from shared.lora import tensors
from shared.models import base as bases
from tests import tiny_model

QUERY, TOKENS = "Who built it?", 24


def reference(base: bases.BaseModel) -> manifests.BaseModelReference:
    return manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )


@contextlib.asynccontextmanager
async def running(
    base: bases.BaseModel,
    settings: backends.BackendSettings | None = None,
    **inference: object,
) -> AsyncIterator[tuple[engines.ArrowEngine, backends.LoRABackend]]:
    given = config.Inference(max_new_tokens=TOKENS, **inference)  # type: ignore[arg-type]
    engine = engines.ArrowEngine(base, given)
    backend = backends.LoRABackend(
        engine, reference(base), settings or backends.BackendSettings(trajectory_share=0.0)
    )
    engine.start()
    try:
        yield engine, backend
    finally:
        await engine.stop()


async def asked(
    engine: engines.ArrowEngine, memory: backends.Memory, query: str = QUERY
) -> generations.Generation:
    return await engine.generate(query, memory.key)


def alone(
    made: stack.Stack | None, skills: Sequence[cards.LoRACard] = (), query: str = QUERY
) -> str:
    """What transformers generates with all of it added to the weights of a model of its own."""
    base = tiny_model.tiny_base(0)
    with torch.no_grad():
        for layer in made.layers.values() if made is not None else ():
            for path, factors in layer.items():
                base.model.get_submodule(path).weight += (factors.a @ factors.b).T
        for skill in skills:
            for path, module in skill:
                adapter = tensors.adapter_of(module, torch.float32)
                change = adapter.lora_a @ adapter.lora_b * adapter.scale
                base.model.get_submodule(path).weight += change.T
    return tiny_model.reference_text(base, query, TOKENS)
