"""Trainings of the tests: a few facts on the tiny base, by any backend."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from services.trainer import backends, data, loop
from services.trainer.backends import own
from shared.lora import manager as managers
from shared.models import base as bases
from tests import tiny_model

SETTINGS = loop.LoopSettings(
    learning_rate=1e-2,
    max_steps=12,
    least_steps=12,
    batch_rows=2,
    replay_rows=2,
    replay_weight=0.5,
    warmup_steps=2,
    clip_norm=1.0,
    question_noise=0.5,
    continued_share=0.3,
    seed=7,
    check_every_steps=3,
)
FACTS = (("Who?", "Ann"), ("Where?", "Rome"), ("When?", "1688"))
REPLAYED = (("Why?", "no"), ("How?", "so"), ("Which?", "it"))


def work(
    facts: tuple[tuple[str, str], ...] = FACTS,
    base: bases.BaseModel | None = None,
    kinds: tuple[str, ...] = ("q_proj", "down_proj"),
    from_layer: int = 0,
    **changes: Any,
) -> backends.Work:
    """A training's order, on a tiny base of its own."""
    base = base or tiny_model.tiny_base()
    paths = [
        path
        for path in managers.LoRAManager(base.model).target_paths(kinds)
        if int(path.split(".")[2]) >= from_layer
    ]
    return backends.Work(
        base=base,
        ranks=dict.fromkeys(paths, 4),
        scale=2.0,
        facts=[[data.example(base, *fact)] for fact in facts],
        replay=[data.example(base, *fact) for fact in REPLAYED],
        settings=dataclasses.replace(SETTINGS, **changes),
        from_layer=from_layer,
    )


@contextlib.contextmanager
def opened(
    facts: tuple[tuple[str, str], ...] = FACTS,
    backend: backends.Backend | None = None,
    **changes: Any,
) -> Iterator[backends.Training]:
    """A training by the own loop, or by another backend."""
    with (backend or own.Own()).open(work(facts, **changes)) as training:
        yield training


def weights(training: backends.Training) -> list[torch.Tensor]:
    """A and B of all layers as they are now."""
    return [m for one in training.adapters().values() for m in (one.lora_a, one.lora_b)]
