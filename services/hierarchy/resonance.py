"""Which agents learn the same thing: alignment across an agent's layers, and among agents.

Alignment is the cosine between changes of A B, module by module; what counts as more than chance
follows from its null distribution. For two independent matrices of any rank in (n, m), one of them
rotated at random, E cos = 0 and E cos^2 = 1 / (n m): z = cos sqrt(n m) has a deviation of 1, and
so has the sum of z over M modules divided by sqrt M. A fixed threshold would be noise on small
modules and blind on large ones, where layers see one gradient through different A and its
projections align by about sqrt(r r') / n. Real gradients are not isotropic: a floor keeps what they
all have in common from counting.

Knows nothing of who the agents are, nor of inertia.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from shared.hierarchy import levels, messages, weights


@dataclasses.dataclass(frozen=True)
class VerticalSettings:
    """Of `VerticalResonance`."""

    enabled: bool = True
    """Off: everything is NORMAL, with factors of 1."""
    gain: float = 0.3
    """Gamma: what full alignment adds to a factor."""
    most: float = 2.0
    """Largest factor."""
    damping: float = 0.2
    """Delta: what full conflict takes from the factors of the faster layers."""
    deviations: float = 2.5
    """Of the null distribution, from which an alignment is no chance."""
    floor: float = 0.005
    """Mean cosine below which an alignment does not count, however sure it is."""
    chance: float = 0.01
    """Probability at most with which any one module stands out by chance."""


@dataclasses.dataclass(frozen=True)
class HorizontalSettings:
    """Of `HorizontalResonance`."""

    enabled: bool = True
    """Off: all factors are 1."""
    gain: float = 0.5
    """Alpha: what a cosine of 1 with the others adds to a factor."""
    damping: float = 0.3
    """What a cosine of -1 takes from it."""
    deviations: float = 2.5
    """Of the null distribution, from which an agent is told as amplified or damped."""


@dataclasses.dataclass(frozen=True)
class Resonance:
    """What vertical resonance says of one agent's changes."""

    mark: messages.Mark
    alignment: float
    """Mean cosine across context, agent and swarm, -1 to 1."""
    factors: Mapping[levels.Level, float]
    """For context, agent and swarm: what each change is multiplied by, 0 to `most`."""
    support: float = 0.0
    """Mean cosine of context and agent with the swarm: what the mark goes by."""
    threshold: float = 0.0
    """That `support` had to pass."""


@dataclasses.dataclass(frozen=True)
class Horizontal:
    """What horizontal resonance says of the agents' gradients."""

    factors: Mapping[str, float]
    """By agent, above 0."""
    alignments: Mapping[str, float]
    """By agent, the mean cosine with the others, -1 to 1."""
    amplified: tuple[str, ...] = ()
    """Agents that agree with the others beyond chance."""
    damped: tuple[str, ...] = ()
    """Those that contradict them beyond chance."""

    @property
    def signal(self) -> float:
        """Mean absolute alignment, 0 to 1."""
        found = [abs(alignment) for alignment in self.alignments.values()]
        return sum(found) / len(found) if found else 0.0


class VerticalResonance:
    """Alignment across an agent's context and agent layer and what others bring to the swarm."""

    def __init__(self, settings: VerticalSettings | None = None) -> None:
        """With constants."""
        self._settings = settings or VerticalSettings()

    def resonate(
        self, context: weights.Weights, agent: weights.Weights, swarm: weights.Weights
    ) -> Resonance:
        """Marks an agent's changes.

        The mark goes by the cosines with the swarm alone, since an agent's own two layers learn
        from the same examples and always agree. It is FAST_TRACK where they are above what chance
        gives, over all modules or in any one, and CONFLICT where they are as far below.

            FAST_TRACK  factor 1 + gamma s   for context, agent and swarm, at most `most`
            CONFLICT    factor 1 - delta s   for context and agent

        with s = 1 - threshold / |support|, from 0 at the threshold to 1.

        Args:
            context: change of the agent's context layer, as products.
            agent: of its agent layer.
            swarm: of the swarm layer, by others than this agent.
        """
        cosines = _cosines(context, swarm), _cosines(agent, swarm), _cosines(context, agent)
        alignment = sum(_mean(found) for found in cosines) / 3
        normal = {level: 1.0 for level in (*levels.PRIVATE, levels.Level.SWARM)}
        support = {
            path: _mean({at: found[path] for at, found in enumerate(cosines[:2]) if path in found})
            for path in dict.fromkeys([*cosines[0], *cosines[1]])
        }
        if not support or not self._settings.enabled:
            return Resonance(messages.Mark.NORMAL, alignment, normal)
        mean, threshold = self._evidence(support, swarm)
        excess = 1.0 - threshold / max(threshold, abs(mean))
        found = Resonance(messages.Mark.NORMAL, alignment, normal, mean, threshold)
        if mean > threshold:
            factor = min(self._settings.most, 1.0 + self._settings.gain * excess)
            return dataclasses.replace(
                found, mark=messages.Mark.FAST_TRACK, factors=dict.fromkeys(normal, factor)
            )
        if mean < -threshold:
            factor = max(0.0, 1.0 - self._settings.damping * excess)
            return dataclasses.replace(
                found,
                mark=messages.Mark.CONFLICT,
                factors=normal | dict.fromkeys(levels.PRIVATE, factor),
            )
        return found

    def _evidence(
        self, support: Mapping[str, float], swarm: weights.Weights
    ) -> tuple[float, float]:
        """A cosine, and what it is to pass: of all modules, or of the one that stands out."""
        # Context and agent may be one and the same change: their mean varies as much as each.
        null = {path: _deviation(swarm[path]) for path in support}
        count = len(support)
        mean = _mean(support)
        chance = self._settings.deviations * math.sqrt(sum(d**2 for d in null.values())) / count
        threshold = max(self._settings.floor, chance)
        if abs(mean) <= threshold:
            # Gaussian tail bound over the modules: exp(-z^2 / 2) M = chance.
            height = math.sqrt(2.0 * math.log(count / self._settings.chance))
            out = [
                (cosine, max(self._settings.floor, height * null[path]))
                for path, cosine in support.items()
                if abs(cosine) > max(self._settings.floor, height * null[path])
            ]
            if out and len({cosine > 0 for cosine, _ in out}) == 1:
                return max(out, key=lambda each: abs(each[0]) / each[1])
        return mean, threshold


class HorizontalResonance:
    """Agents' gradients for one shared layer: aligned ones amplified, conflicting ones damped.

    After gradient surgery (PCGrad: Yu et al. 2020) and conflict-averse descent (CAGrad: Liu et al.
    2021), which resolve conflict between tasks; here between agents, and by a factor, so that no
    direction is made up that no agent has sent. With c the mean over modules of the cosine with the
    sum of the others' directions, each of length 1 so that no agent is louder than another:

        factor = 1 + alpha c     for c >= 0
        factor = 1 - damping |c| for c < 0
    """

    def __init__(self, settings: HorizontalSettings | None = None) -> None:
        """With constants."""
        self._settings = settings or HorizontalSettings()

    def resonate(
        self, gradients: Mapping[str, weights.Delta], before: weights.Weights
    ) -> Horizontal:
        """Compares every agent with all others.

        Args:
            gradients: by agent, changes of A and B of one layer.
            before: the weights that they are changes of.
        """
        agents = list(gradients)
        cosines: dict[str, dict[str, float]] = {agent: {} for agent in agents}
        changes = {agent: weights.product_change(before, gradients[agent]) for agent in agents}
        for path in before:
            here = {agent: changes[agent][path] for agent in agents if path in changes[agent]}
            for agent, cosine in _with_others(here).items():
                cosines[agent][path] = cosine
        alignments = {agent: _mean(found) for agent, found in cosines.items()}
        if not self._settings.enabled:
            return Horizontal(dict.fromkeys(agents, 1.0), alignments)
        bounds = {
            agent: self._settings.deviations * _shared_deviation(before, found)
            for agent, found in cosines.items()
        }
        return Horizontal(
            {agent: self._factor(alignment) for agent, alignment in alignments.items()},
            alignments,
            tuple(agent for agent in agents if alignments[agent] > bounds[agent]),
            tuple(agent for agent in agents if alignments[agent] < -bounds[agent]),
        )

    def _factor(self, alignment: float) -> float:
        gain = self._settings.gain if alignment > 0 else self._settings.damping
        return max(0.0, 1.0 + gain * alignment)


def _cosines(one: weights.Weights, other: weights.Weights) -> dict[str, float]:
    """By module, where neither change is zero."""
    found = {}
    for path in one:
        if path in other:
            size = weights.inner(one[path], one[path]) * weights.inner(other[path], other[path])
            if size > 0 and math.isfinite(size):
                found[path] = weights.inner(one[path], other[path]) / math.sqrt(size)
    return found


def _with_others(changes: Mapping[str, weights.Factors]) -> dict[str, float]:
    """Of one module: the cosine of each agent's product with the sum of the others' directions.

    With S the sum of all directions U: <U, S - U> / |S - U|, by two products of all factors side by
    side, however many agents there are.
    """
    sizes = {agent: weights.inner(change, change) for agent, change in changes.items()}
    units = {
        agent: change.scaled(sizes[agent] ** -0.5)
        for agent, change in changes.items()
        if sizes[agent] > 0 and math.isfinite(sizes[agent])
    }
    if len(units) < 2:
        return {}
    left_I_K = torch.cat([unit.a for unit in units.values()], dim=1)
    right_K_O = torch.cat([unit.b for unit in units.values()], dim=0)
    total_I_O = left_I_K @ right_K_O
    terms_K = ((left_I_K.T @ total_I_O) * right_K_O).sum(1).double()
    ranks = [unit.rank for unit in units.values()]
    toward_N = torch.stack([terms.sum() for terms in terms_K.split(ranks)])
    rest_N = (toward_N.sum() - 2.0 * toward_N + 1.0).clamp_min(0.0).sqrt()
    cosine_N = torch.where(rest_N > 1e-6, (toward_N - 1.0) / rest_N, 0.0).clamp(-1.0, 1.0)
    return dict(zip(units, cosine_N.tolist(), strict=True))


def _deviation(change: weights.Factors) -> float:
    """Of the cosine of independent matrices of these sides."""
    return float((change.a.shape[0] * change.b.shape[1]) ** -0.5)


def _shared_deviation(before: weights.Weights, found: Mapping[str, float]) -> float:
    """Of the mean cosine of independent changes of one and the same A and B.

    They lie in the column space of A or the row space of B: r m or n r dimensions rather than n m.
    """
    squares = [
        1.0 / (before[path].rank * min(before[path].a.shape[0], before[path].b.shape[1]))
        for path in found
    ]
    return math.sqrt(sum(squares)) / len(squares) if squares else 0.0


def _mean(found: Mapping[Any, float]) -> float:
    return sum(found.values()) / len(found) if found else 0.0
