"""The hierarchy with all its agents in this process, without network or disk.

Layers, ticks, aggregation, migration and rounds are those of the service. Two things are simpler
than on a node: agents rehearse what their trajectory cache has of right answers, where a node has
kept feedback; and a domain is met for a number of rounds, where a node learns until it is right.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import torch

from benchmarks.hierarchy import course, world
from services.hierarchy import hierarchy, hierarchy_settings
from shared.hierarchy import agent as agents
from shared.hierarchy import circuits, learning, levels, trajectories, wire
from shared.hierarchy import stack as stacks

_LOOKED_AT = 32
"""Remembered answers that an idle agent tries in a tick."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """How the hierarchy is set up: as shipped, or with something taken away."""

    hierarchy: hierarchy_settings.HierarchySettings = dataclasses.field(
        default_factory=hierarchy_settings.HierarchySettings
    )
    agent: agents.AgentSettings = dataclasses.field(default_factory=agents.AgentSettings)
    specs: levels.Specs = dataclasses.field(default_factory=lambda: dict(levels.DEFAULT_SPECS))
    shared_share: float | None = None
    """Of the steps that run on the shared layers alone; None: as the recipe has it."""
    rehearses: bool = True
    rehearses_when_idle: bool = True
    """Whether agents that meet nothing new look whether they still know what they knew, and learn
    again what they do not."""


class Memory:
    """`LoRAHierarchy` and its agents; a `course.Method`."""

    def __init__(
        self,
        bench: course.Bench,
        recipe: learning.Recipe,
        plan: world.Plan,
        variant: Variant | None = None,
    ) -> None:
        """Begins with layers that add nothing.

        Args:
            bench: the model.
            recipe: of the agents' rounds.
            plan: who meets what; its seed decides everything.
            variant: as shipped by default.
        """
        self._bench, self._plan = bench, plan
        self._variant = variant or Variant()
        if self._variant.shared_share is not None:
            recipe = dataclasses.replace(recipe, shared_share=self._variant.shared_share)
        self._recipe = recipe
        self.frame = wire.Frame(bench.shapes, self._variant.specs)
        self.hierarchy = hierarchy.LoRAHierarchy(
            self.frame, self._variant.hierarchy, seed=plan.seed
        )
        self.agents = [
            agents.AgentLayers(f"agent-{number}", self.frame, self._variant.agent, plan.seed)
            for number in range(plan.agents)
        ]
        self._moments: dict[str, learning.Moments] = {}
        self._rng = random.Random(plan.seed)
        self._generator = torch.Generator().manual_seed(plan.seed)

    def tick(self, domain: world.Domain) -> None:
        """See `course.Method`: rounds of all agents, one tick, and their settlements."""
        for number, agent in enumerate(self.agents):
            if number in domain.agents:
                bad = number in self._plan.bad
                lessons: Sequence[learning.Lesson] = domain.shuffled if bad else domain.taught
            elif self._variant.rehearses_when_idle:
                lessons = self._forgotten(number, agent)
            else:
                continue
            if lessons:
                self._round(number, agent, lessons)
        self.hierarchy.system_tick()
        for number, agent in enumerate(self.agents):
            after = agent.sequence - len(agent.unsettled)
            for settlement in self.hierarchy.settlements(agent.agent, after):
                agent.settle(settlement)
            if number in domain.agents and number not in self._plan.bad:
                self._answer(number, agent, domain.asked)

    def leave(self, domain: world.Domain) -> None:
        """See `course.Method`: the agents that met it remember what they answer right."""
        for number, agent in enumerate(self.agents):
            if number in domain.agents and number not in self._plan.bad:
                self._answer(number, agent, domain.taught)

    def stack(self, agent: int) -> stacks.Stack:
        """See `course.Method`."""
        snapshot = self.hierarchy.snapshot()
        return stacks.Stack(snapshot.version, {**snapshot.layers, **self.agents[agent].weights})

    def _round(
        self, number: int, agent: agents.AgentLayers, lessons: Sequence[learning.Lesson]
    ) -> None:
        remembered = self._remembered(agent, len(agent.cache)) if self._variant.rehearses else []
        layers = self.stack(number)
        moments = self._moments.get(agent.agent)
        one = self._bench.round(layers, self.frame.specs, self._recipe, moments)
        for _ in one.steps(lessons, remembered, self._rng.randrange(2**31), self._bench.held):
            pass
        self._moments[agent.agent] = one.moments()
        found = one.learned()
        shared = {level: found.gradients[level] for level in levels.SHARED}
        private = {level: found.gradients[level] for level in levels.PRIVATE}
        agent.learned(layers.version, shared, private, found.lessons)
        submission = agent.submission()
        if submission is not None:
            self.hierarchy.submit(submission)

    def _forgotten(self, number: int, agent: agents.AgentLayers) -> Sequence[learning.Lesson]:
        """Of some answers that it knew, those that it would get wrong now."""
        looked_at = self._remembered(agent, _LOOKED_AT)
        if not looked_at:
            return ()
        right = self._bench.are_right(self.stack(number), looked_at)
        return tuple(one for one, is_right in zip(looked_at, right, strict=True) if not is_right)

    def _remembered(self, agent: agents.AgentLayers, most: int) -> list[learning.Lesson]:
        drawn = agent.cache.rehearsal(most, self._generator)
        return [
            learning.Lesson(tuple(one.prompt.tolist()), tuple(one.answer.tolist())) for one in drawn
        ]

    def _answer(
        self, number: int, agent: agents.AgentLayers, lessons: Sequence[learning.Lesson]
    ) -> None:
        """What the agent answers right becomes part of its trajectories."""
        layers = self.stack(number)
        for seen in self._bench.answered(layers, lessons):
            if not seen.is_right:
                continue
            trajectory = trajectories.trajectory(
                seen.lesson.prompt, seen.lesson.answer, seen.logits, seen.pooled
            )
            active = {
                level: {
                    path: circuits.activity(seen.inputs[path], factors.a)
                    for path, factors in agent.weights[level].items()
                }
                for level in levels.PRIVATE
            }
            agent.observe(trajectory, active)
