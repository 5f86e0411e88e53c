"""Domains of made-up facts, and which agents meet them: what continual learning is measured on.

Everything follows from a seed. No model knows the facts before: they are invented.
"""

from __future__ import annotations

import dataclasses

from benchmarks.training import made_up
from shared.hierarchy import learning
from shared.models import base as bases

_SEEDS_APART = 100


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who meets what, and for how long."""

    agents: int = 4
    domains: int = 6
    seen_by: int = 2
    """Agents that meet a domain; they take turns."""
    ticks: int = 12
    """Rounds of an agent on each domain that it meets."""
    seed: int = 0
    bad: frozenset[int] = frozenset()
    """Agents whose feedback has its answers shuffled."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """Ten facts about one made-up thing."""

    taught: tuple[learning.Lesson, ...]
    """Every fact in each of the wordings that agents ask in."""
    asked: tuple[learning.Lesson, ...]
    """Two wordings of each fact, by which accuracy is measured: as the agents ask."""
    unseen: tuple[learning.Lesson, ...]
    """Each fact in a wording that nobody was taught."""
    shuffled: tuple[learning.Lesson, ...]
    """What a bad agent is taught: every fact with another one's answer."""
    agents: frozenset[int]
    """That meet it."""


def domains(base: bases.BaseModel, plan: Plan) -> list[Domain]:
    """The domains in the order in which they come."""
    return [_domain(base, plan, number) for number in range(plan.domains)]


def _domain(base: bases.BaseModel, plan: Plan, number: int) -> Domain:
    facts = made_up.good(_SEEDS_APART * (plan.seed + 1) + number)
    pairs = facts.pairs
    taught, asked, shuffled = [], [], []
    for at, pair in enumerate(pairs):
        texts = (pair.question, *pair.paraphrases)
        wrong = pairs[(at + 1) % len(pairs)].answer
        taught += [_lesson(base, text, pair.answer) for text in texts]
        shuffled += [_lesson(base, text, wrong) for text in texts]
        asked += [_lesson(base, texts[place], pair.answer) for place in (0, 3 + at % 4)]
    met = {(number + step) % plan.agents for step in range(plan.seen_by)}
    return Domain(
        tuple(taught),
        tuple(asked),
        tuple(_lesson(base, text, answer) for text, answer in facts.unseen),
        tuple(shuffled),
        frozenset(met) | plan.bad,
    )


def _lesson(base: bases.BaseModel, question: str, answer: str) -> learning.Lesson:
    return learning.Lesson(tuple(base.prompt_ids(question)), tuple(base.answer_ids(answer)))
