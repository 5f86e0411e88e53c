"""Settings of what is worth learning and how much may be spent on it; see `shared.settings`."""

from __future__ import annotations

import zoneinfo
from typing import Annotated

import croniter
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
    tenant_feedback_per_hour: int = pydantic.Field(default=600, ge=0)
    """Answers that the callers of one tenant may call right or wrong; more are refused."""


class Nightly(sections.Section):
    """Tasks of low priority wait for the night and are learned together."""

    enabled: bool = True
    """Without it they start when it is their turn."""
    cron: str = "0 2 * * *"
    """When a night begins: minute, hour, day of the month, month, day of the week. One that was
    missed is made up for at the next start."""
    timezone: str = "UTC"
    """Of `cron`, such as Europe/Berlin."""
    priority_below: Annotated[int, pydantic.Field(ge=1, le=6)] = 3
    """Tasks of a lower priority wait. Questions have 3, or more where many ask; what is taught has
    what its teacher gave it."""
    same_skill: _Similarity = 0.5
    """Gaps of one domain are learned as one skill from this similarity (cosine) on."""
    rotate_teachers: bool = True
    """The skills of a night are shared out among all configured teachers, each asked once through;
    else all go to the first one. Whoever is down is stood in for as by day."""

    @pydantic.field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        if len(cron.split()) != 5 or not croniter.croniter.is_valid(cron):
            raise ValueError(f"{cron!r} is no cron expression of five fields, such as 0 2 * * *")
        return cron

    @pydantic.field_validator("timezone")
    @classmethod
    def _is_timezone(cls, name: str) -> str:
        if name not in zoneinfo.available_timezones():
            raise ValueError(f"{name!r} is no time zone, such as UTC or Europe/Berlin")
        return name


class Recheck(sections.Section):
    """Served cards are proved again; one that has become worse makes room for the one before."""

    every_hours: Annotated[float, pydantic.Field(ge=0)] = 24.0
    """How often each card is; 0: never."""
    tolerance: sections.Share = 0.05
    """By how much a row of the gate's table may fall below what was recorded."""
    wrongs: int = pydantic.Field(default=3, ge=0)
    """Before its time a card is proved again when users called its answers to so many different
    questions wrong since it last was, 24 times as often at most; 0: never for that."""
