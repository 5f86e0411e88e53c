"""Settings of what is worth learning and how much may be spent on it; see `shared.settings`."""

from __future__ import annotations

from typing import Annotated

import pydantic

from shared import sections

_Similarity = Annotated[float, pydantic.Field(gt=0, le=1)]


class Judgement(sections.Section):
    """Which of the questions that no card fits start learning. Taught topics always do."""

    enabled: bool = True
    """Without it every one of them does."""
    unsure_logprob: Annotated[float, pydantic.Field(le=0)] = -0.15
    """The base model is unsure of an answer whose tokens have a lower log-probability on
    average..."""
    unsure_entropy: sections.Positive = 0.4
    """...or were chosen with a higher entropy (nats), or that says that it does not know..."""
    unsure_semantic_entropy: sections.Positive = 0.7
    """...or where further answers, which `inference.semantic_samples` asks for, have a higher
    entropy of their meanings (nats): of five, where they have three meanings or more."""
    small_talk: _Similarity = 0.55
    """A question is small talk from this similarity (cosine) to a known piece of it on."""
    same_gap: _Similarity = 0.8
    """It is about the gap of an open task from this similarity to one of its questions on."""


class Budget(sections.Section):
    """How many learning tasks may start within an hour; more wait. 0: any number."""

    tasks_per_hour: int = pydantic.Field(default=60, ge=0)
    """All together, taught ones included: each asks a teacher."""
    tenant_tasks_per_hour: int = pydantic.Field(default=20, ge=0)
    """Of one tenant; callers without a tenant count as one."""
