"""What the hierarchy is measured against: one LoRA of the same total rank, with the same updates.

Each learns by the very rounds by which agents of the hierarchy learn, and meets the same lessons.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import torch

from benchmarks.hierarchy import course, world
from shared.hierarchy import layer, learning, levels, weights
from shared.hierarchy import stack as stacks

RANK = sum(spec.rank for spec in levels.DEFAULT_SPECS.values())
_LEVEL = levels.Level.SWARM
_SPECS = {_LEVEL: levels.Spec(RANK, 0.0)}


class OneLoRA:
    """Fine-tuned in sequence: whatever comes is learned, by one agent after the other."""

    def __init__(self, bench: course.Bench, recipe: learning.Recipe, plan: world.Plan) -> None:
        """Begins at the usual start: A random, B zero.

        Args:
            bench: the model.
            recipe: of the agents' rounds; without shares for layers, since there is but one.
            plan: whose seed decides everything.
        """
        self.bench, self.plan = bench, plan
        self.recipe = dataclasses.replace(recipe, shared_share=0.0)
        self.rng = random.Random(plan.seed)
        self.moments: dict[int, learning.Moments] = {}
        fresh = layer.DynamicLoRALayer(_LEVEL, bench.shapes, _SPECS[_LEVEL], seed=plan.seed)
        self.now = stacks.Stack(0, {_LEVEL: fresh.weights})

    def tick(self, domain: world.Domain) -> None:
        """See `course.Method`."""
        for agent in sorted(domain.agents):
            self.now = self.moved([self.round(agent, domain)])

    def leave(self, domain: world.Domain) -> None:
        """See `course.Method`."""

    def stack(self, agent: int) -> stacks.Stack:
        """See `course.Method`."""
        return self.now

    def rehearsed(self) -> Sequence[learning.Lesson]:
        """What each step rehearses."""
        return ()

    def penalty(self) -> learning.Penalty | None:
        """What is added to each step's loss."""
        return None

    def round(self, agent: int, domain: world.Domain) -> weights.Delta:
        """One agent's round from where the LoRA stands."""
        lessons = domain.shuffled if agent in self.plan.bad else domain.taught
        one = self.bench.round(self.now, _SPECS, self.recipe, self.moments.get(agent))
        seed = self.rng.randrange(2**31)
        for _ in one.steps(lessons, self.rehearsed(), seed, self.bench.held, self.penalty()):
            pass
        self.moments[agent] = one.moments()
        return one.learned().gradients[_LEVEL]

    def moved(self, changes: Sequence[weights.Delta]) -> stacks.Stack:
        """Where the mean of some changes leads."""
        share, before = 1.0 / len(changes), self.now.layers[_LEVEL]
        after = {
            path: weights.Factors(
                was.a + share * sum(change[path].a for change in changes),
                was.b + share * sum(change[path].b for change in changes),
            )
            for path, was in before.items()
        }
        return stacks.Stack(self.now.version + 1, {_LEVEL: after})


class FederatedAveraging(OneLoRA):
    """The mean of the agents' changes (FedAvg: McMahan et al. 2017), A and B by themselves."""

    def tick(self, domain: world.Domain) -> None:
        """See `course.Method`."""
        self.now = self.moved([self.round(agent, domain) for agent in sorted(domain.agents)])


class Replay(OneLoRA):
    """In sequence, with a buffer of all lessons of the domains before (experience replay)."""

    def __init__(self, bench: course.Bench, recipe: learning.Recipe, plan: world.Plan) -> None:
        """See `OneLoRA`."""
        super().__init__(bench, recipe, plan)
        self._buffer: list[learning.Lesson] = []

    def leave(self, domain: world.Domain) -> None:
        """See `course.Method`."""
        self._buffer += domain.taught

    def rehearsed(self) -> Sequence[learning.Lesson]:
        """See `OneLoRA`."""
        return self._buffer


class ElasticWeights(OneLoRA):
    """Elastic weight consolidation (Kirkpatrick et al. 2017), online (Schwarz et al. 2018).

    The loss grows by `strength / 2 * F (w - w*)^2`, F the diagonal of the Fisher information.
    """

    strength = 1e7
    """The best of 1e4, which changes nothing, and 1e7."""
    _LESSONS = 40

    def __init__(self, bench: course.Bench, recipe: learning.Recipe, plan: world.Plan) -> None:
        """See `OneLoRA`."""
        super().__init__(bench, recipe, plan)
        self._fisher: dict[str, weights.Factors] = {}
        self._anchor: weights.Weights = {}

    def leave(self, domain: world.Domain) -> None:
        """See `course.Method`: measures what matters for the domain."""
        lessons = self.rng.sample(domain.taught, min(self._LESSONS, len(domain.taught)))
        one = self.bench.round(self.now, _SPECS, self.recipe)
        found = one.squared_gradients(lessons)[_LEVEL]
        self._fisher = {
            path: weights.Factors(here.a + was.a, here.b + was.b)
            if (was := self._fisher.get(path))
            else here
            for path, here in found.items()
        }
        self._anchor = self.now.layers[_LEVEL]

    def penalty(self) -> learning.Penalty | None:
        """See `OneLoRA`."""
        if not self._fisher:
            return None
        fisher, anchor, strength = self._fisher, self._anchor, self.strength

        def added(now: learning.Trained) -> torch.Tensor:
            total = torch.zeros(())
            for path, held in now[_LEVEL].items():
                known, was = fisher[path], anchor[path]
                total = total + (known.a * (held.a - was.a) ** 2).sum()
                total = total + (known.b * (held.b - was.b) ** 2).sum()
            return total * (strength / 2)

        return added


BASELINES: dict[str, Callable[[course.Bench, learning.Recipe, world.Plan], OneLoRA]] = {
    "one LoRA in sequence": OneLoRA,
    "with replay": Replay,
    "with EWC": ElasticWeights,
    "federated averaging": FederatedAveraging,
}
