"""Agents whose gradients are drawn: of what all of them learn, of noise of their own, or both.

A gradient of the loss by a module's weights is a matrix G, (in, out); a layer x A B sees of it
dA = G B^T and dB = A^T G. So every layer of an agent sees one and the same G through its own
factors, as in learning, and what resonance finds is what is left of G after that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from services.hierarchy import hierarchy, tick_report
from shared.hierarchy import agent, circuits, levels, messages, weights, wire


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What agents learn in a tick."""

    shared: Mapping[str, torch.Tensor]
    """By module the gradient that all have in common, (in, out) of norm 1; empty for none."""
    noise: float
    """Norm of what each has of its own beside it."""
    rank: int
    """Of both: gradients of a few examples have few directions."""


class Agents:
    """Some agents on one hierarchy, which learn, submit and settle tick by tick."""

    def __init__(self, held: hierarchy.LoRAHierarchy, count: int, seed: int) -> None:
        """Agents that know nothing.

        Args:
            held: the hierarchy, which nobody else ticks.
            count: of agents.
            seed: of the noise.
        """
        self.held = held
        self.own = [agent.AgentLayers(f"agent-{at}", held.frame) for at in range(count)]
        self._draw = torch.Generator().manual_seed(seed)

    def tick(
        self, lessons: Mapping[int, Lesson], rate: float = 0.1, channels: int = 0
    ) -> tuple[tick_report.TickReport, list[messages.Settlement]]:
        """One round of the agents that learn, and a tick.

        Args:
            lessons: by the number of an agent.
            rate: of learning.
            channels: of each module, that each agent offers as one circuit; 0 for no circuit.

        Returns:
            The report, and these agents' settlements, in order.
        """
        snapshot = self.held.snapshot()
        for at, lesson in sorted(lessons.items()):
            own = self.own[at]
            gradient = self._gradient(lesson)
            own.learned(
                snapshot.version,
                {level: _step(snapshot.layers[level], gradient, rate) for level in levels.SHARED},
                {level: _step(own.weights[level], gradient, rate) for level in levels.PRIVATE},
                examples=1,
            )
            sent = own.submission()
            if sent is not None:
                offered = (self._circuit(own, channels),) if channels else ()
                self.held.submit(dataclasses.replace(sent, circuits=offered))
        report = self.held.system_tick()
        told = []
        for at in sorted(lessons):
            own = self.own[at]
            for one in self.held.settlements(own.agent, own.sequence - 1):
                own.settle(one)
                told.append(one)
        return report, told

    def _circuit(self, own: agent.AgentLayers, channels: int) -> messages.Circuit:
        """The strongest channels of the agent layer that are not on offer."""
        layer = own.weights[levels.Level.AGENT]
        chosen: dict[str, tuple[int, ...]] = {}
        for path, pair in layer.items():
            strength = pair.a.norm(dim=0) * pair.b.norm(dim=1)
            for offered in own.offered.values():
                strength[list(offered.circuit.channels[path])] = -1.0
            chosen[path] = tuple(sorted(strength.argsort(descending=True)[:channels].tolist()))
        found = messages.Circuit(
            id=f"{own.agent}:{own.sequence}",
            agent=own.agent,
            level=levels.Level.AGENT,
            top=levels.Level.DOMAIN,
            channels=chosen,
            pieces=circuits.cut(layer, chosen),
            autocorrelation=0.7 + 0.3 * float(torch.rand((), generator=self._draw)),
            hits=10,
        )
        own.offered[found.id] = agent.Offered(found, own.sequence, own.settings.patience)
        return found

    def _gradient(self, lesson: Lesson) -> dict[str, torch.Tensor]:
        found = {}
        for path, shape in sorted(self.held.frame.shapes.items()):
            noise = pattern(shape, lesson.rank, self._draw) * lesson.noise
            found[path] = lesson.shared[path] + noise if lesson.shared else noise
        return found


def pattern(shape: weights.Shape, rank: int, draw: torch.Generator) -> torch.Tensor:
    """A random matrix of some rank and of norm 1, (in, out)."""
    left = torch.randn(shape.in_features, rank, generator=draw)
    right = torch.randn(rank, shape.out_features, generator=draw)
    whole: torch.Tensor = left @ right
    unit: torch.Tensor = whole / whole.norm()
    return unit


def common(frame: wire.Frame, rank: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    """For `Lesson.shared`: a pattern of each module."""
    return {path: pattern(shape, rank, draw) for path, shape in sorted(frame.shapes.items())}


def _step(
    layer: weights.Weights, gradient: Mapping[str, torch.Tensor], rate: float
) -> weights.Delta:
    return {
        path: weights.Factors(rate * gradient[path] @ pair.b.T, rate * pair.a.T @ gradient[path])
        for path, pair in layer.items()
    }
