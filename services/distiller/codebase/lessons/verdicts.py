"""Why a sample is not taught: the words in which all checks speak.

Every check is a function from samples to a `Sifted`. Knows nothing about any check.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
from collections.abc import Iterable

from shared.flight import samples


class Reason(enum.StrEnum):
    """Why, in the order in which samples are checked."""

    SECRET = "secret"
    """It holds what looks like a secret."""
    EMPTY = "empty"
    """Nothing is asked, or nothing answered."""
    LENGTH = "length"
    """Too long to be trained on, or to be sent."""
    SAME = "same"
    """It answers with what it was asked about."""
    SYNTAX = "syntax"
    """It does not parse."""
    ABSENT = "absent"
    """The repository has no such code."""
    PROSE = "prose"
    """An explanation that is no prose."""
    OFF = "off"
    """A test that never names what it tests, or tests nothing."""
    DUPLICATE = "duplicate"
    """Another sample says nearly the same."""
    LEAKED = "leaked"
    """It shares a long run of tokens with what is held out."""
    SURPLUS = "surplus"
    """Nothing is wrong with it; the dataset is full."""


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A sample that is not taught."""

    sample: samples.Sample
    reason: Reason
    detail: str
    """What exactly is wrong, for people."""


@dataclasses.dataclass(frozen=True)
class Sifted:
    """What a check kept, in order, and what it rejected."""

    kept: tuple[samples.Sample, ...]
    rejected: tuple[Rejected, ...] = ()


def counts(rejected: Iterable[Rejected]) -> dict[str, int]:
    """How many were rejected for each reason, in the order of the checks."""
    found = collections.Counter(one.reason for one in rejected)
    return {reason.value: found[reason] for reason in Reason if found[reason]}


def to_jsonl(rejected: Iterable[Rejected]) -> bytes:
    """One JSON object a line, for people; of what holds a secret the code is left out."""
    lines = []
    for one in rejected:
        sample = one.sample
        if one.reason is Reason.SECRET:
            sample = dataclasses.replace(sample, instruction="", input="", output="")
        told = {"reason": one.reason, "detail": one.detail, "sample": dataclasses.asdict(sample)}
        lines.append(json.dumps(told, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")
