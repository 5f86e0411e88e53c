"""Settings of who teaches, how patiently they are asked and what they may cost.

See `shared.settings`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic

from shared import sections

_Amount = Annotated[float, pydantic.Field(ge=0)]
_Tokens = Annotated[int, pydantic.Field(ge=0)]


class Teacher(sections.Section):
    """One provider of question/answer pairs."""

    provider_type: Literal["openai", "anthropic", "local", "documents", "recorded"]
    """Which SDK or source."""
    model: str = ""
    """Model name at the provider; empty for the provider's default."""
    endpoint: str = ""
    """Base URL; empty for the provider's own."""
    timeout_s: sections.Positive = 60.0
    """Longest wait for one answer, retries and the pauses between them included."""


class Rate(sections.Section):
    """What a model costs, in US dollars for a million tokens."""

    input: _Amount
    """Of what it is asked; cached input counts as any other."""
    output: _Amount
    """Of what it writes, its reasoning included."""


class Spending(sections.Section):
    """What the teachers that cost money may take. 0: any amount.

    A call whose largest possible size does not fit any more is not made.
    """

    task_tokens: _Tokens = 0
    """Input and output of one learning task together."""
    task_dollars: _Amount = 0.0
    """Of one learning task; every model that costs money then needs its rate."""
    day_tokens: _Tokens = 0
    """Of all tasks in one day, UTC."""
    day_dollars: _Amount = 0.0
    """Of all tasks in one day, UTC."""


class Breaker(sections.Section):
    """When a teacher that fails is left alone, and for how long.

    One whose key is refused or whose quota is used up is left alone at once, for the longest
    pause; one that says how long to wait, for that long.
    """

    failures: sections.Count = 3
    """This many in a row open its circuit; until then every request tries it first."""
    pause_s: sections.Positive = 30.0
    """After it one request may try; each that fails doubles the pause."""
    longest_pause_s: sections.Positive = 900.0
    """The pause grows no further."""


class Evolution(sections.Section):
    """Which teachers are asked. Keys come from OPENAI_API_KEY and ANTHROPIC_API_KEY."""

    provider_type: Literal["auto", "openai", "anthropic", "local", "documents", "recorded"] = "auto"
    """`auto`: openai where its key is set, else documents."""
    model: str = ""
    """Model name at the provider; empty for the provider's default."""
    endpoint: str = ""
    """Base URL of the provider; empty for its own."""
    timeout_s: sections.Positive = 60.0
    """Longest wait for one answer, retries and the pauses between them included."""
    fallbacks: tuple[Teacher, ...] = ()
    """Asked in this order when the one before is down, out of quota or over budget."""
    recordings: pathlib.Path | None = None
    """Recorded answers for provider_type `recorded`."""
    retries: Annotated[int, pydantic.Field(ge=0, le=10)] = 2
    """Of one request, after answers such as 429 and 500, as far as the time for it goes."""
    max_output_tokens: sections.Count = 16_000
    """Most tokens of one answer of a teacher that costs money; a call is counted as that large
    before it is made. Some older models allow less and refuse a larger one."""
    rates: Mapping[str, Rate] = {}
    """By the name of the model; what a model without a rate costs is not known."""
    budget: Spending = Spending()
    """What may be spent."""
    breaker: Breaker = Breaker()
    """When a teacher is left alone."""
