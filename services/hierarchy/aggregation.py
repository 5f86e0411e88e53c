"""One change of a shared layer from the changes of many agents, of whom some may be bad.

Byzantine-robust aggregation, coordinate by coordinate (Yin et al. 2018), after each agent's norm is
clipped to a multiple of the median, and agents that point elsewhere are left out. Changes of A and
B can be combined entry by entry here, since all are changes of one and the same A and B.

Knows nothing of what layer it is, nor of resonance, whose factors it takes as they come.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import statistics
from collections.abc import Mapping

import torch

from shared import errors
from shared.hierarchy import weights

_CHUNK = 1 << 15
"""Coordinates that are sorted at a time: they stay in the processor's cache."""


class Method(enum.StrEnum):
    """How agents are combined where there are at least three."""

    MEAN = "mean"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed_mean"


@dataclasses.dataclass(frozen=True)
class AggregationSettings:
    """Of `combine`."""

    method: Method = Method.TRIMMED_MEAN
    trim: float = 0.2
    """Share of the agents that is cut from each end, coordinate by coordinate; below 0.5. Above 0,
    at least one of three agents or more is cut from each end."""
    clip: float = 1.5
    """An agent's norm is at most this many times the median norm, the lower of two."""
    most_growth: float = 3.0
    """The same of the median of what agents brought at most in earlier ticks, where two did: in a
    tick in which an agent is alone there is nobody to be held against."""
    fade: float = 0.98
    """What such a largest norm keeps whenever its agent brings a smaller one."""
    use_filter: bool = True
    """Off: no agent is left out for where it points."""
    least_share: float = 0.33
    """An agent is left out whose cosine with the median of the others is less than this share of
    what is usual: of the median of all agents' cosines."""
    usual: float = 0.3
    """Where agents agree less than this, they differ too much for one of them to stand out."""
    opposed: float = -0.2
    """An agent is left out whose cosine with the median of the others is below this."""


@dataclasses.dataclass(frozen=True)
class Combined:
    """What the agents say together."""

    delta: weights.Delta
    """Empty where there was none to combine."""
    left_out: Mapping[str, str]
    """Agent to why: NaN or infinity, or where it points."""
    clipped: tuple[str, ...]
    """Agents whose norm was reduced, of those that were taken."""
    norms: Mapping[str, float]
    """Of those that were taken, clipped: the largest lately, for `known` of the next tick."""
    cosines: Mapping[str, float]
    """With the median of the others, by agent; empty for fewer than three."""
    breadth: float = 1.0
    """How many different things the agents say, 1 to their number.

    The mean of N agents that all learned the same is what each learned; the mean of N that learned
    N different things is an N-th of each. With C the cosines between the agents' changes, negative
    ones taken as 0, N^2 / sum(C) is 1 in the one case and N in the other (an effective sample size:
    Kish 1965)."""


def combine(
    deltas: Mapping[str, weights.Delta],
    factors: Mapping[str, float] | None = None,
    settings: AggregationSettings | None = None,
    known: Mapping[str, float] | None = None,
) -> Combined:
    """The robust mean of the agents' changes.

    Args:
        deltas: by agent, changes of A and B from the same weights; a module that one lacks counts
            as zero there.
        factors: by agent, 0 or more, from resonance; applied after clipping. Missing: 1.
        settings: constants.
        known: by agent, `norms` of earlier ticks.

    Raises:
        errors.InvalidInputError: two agents' changes differ in shape, a factor is negative or not
            finite, or a setting is out of its range.
    """
    settings = settings or AggregationSettings()
    factors = factors or {}
    _check(settings, factors)
    layout = _layout(deltas)
    left_out: dict[str, str] = {}
    rows: dict[str, torch.Tensor] = {}
    norms: list[float] = []
    for agent, delta in deltas.items():
        row = _flat(delta, layout)
        norm = float(torch.linalg.vector_norm(row))
        if math.isfinite(norm):
            rows[agent] = row
            norms.append(norm)
        else:
            left_out[agent] = "its change holds NaN or infinite values, or its norm overflows"
    if not rows:
        return Combined({}, left_out, (), {}, {})
    limit = settings.clip * statistics.median_low(norms)
    known = known or {}
    if len(known) > 1:
        limit = min(limit, settings.most_growth * statistics.median_low(known.values()))
    scales = [limit / norm if norm > limit else 1.0 for norm in norms]
    stacked_N_P = torch.stack(list(rows.values())).mul_(torch.tensor(scales)[:, None])
    agents = list(rows)
    cosines: dict[str, float] = {}
    if len(agents) >= 3:
        cosines = dict(zip(agents, _cosines(stacked_N_P).tolist(), strict=True))
        if settings.use_filter:
            left_out |= _outliers(cosines, settings)
    taken = [at for at, agent in enumerate(agents) if agent not in left_out]
    share_N = torch.tensor([factors.get(agents[at], 1.0) for at in taken])
    chosen_N_P = stacked_N_P if len(taken) == len(agents) else stacked_N_P[taken]
    chosen_N_P.mul_(share_N[:, None])
    clipped = tuple(agents[at] for at in taken if scales[at] < 1.0)
    breadth = _breadth(chosen_N_P)
    delta = _split(_middle(chosen_N_P, settings), layout)
    lately = {
        agents[at]: max(norms[at] * scales[at], settings.fade * known.get(agents[at], 0.0))
        for at in taken
    }
    return Combined(delta, left_out, clipped, lately, cosines, breadth)


def _check(settings: AggregationSettings, factors: Mapping[str, float]) -> None:
    if not 0.0 <= settings.trim < 0.5 or settings.clip <= 0.0:
        raise errors.InvalidInputError(
            f"trim is {settings.trim} and clip {settings.clip}; trim must be at least 0 and below "
            f"0.5, clip above 0"
        )
    for agent, factor in factors.items():
        if not 0.0 <= factor < math.inf:
            raise errors.InvalidInputError(
                f"the factor of agent {agent!r} is {factor}; it must be finite and not negative"
            )


def _layout(deltas: Mapping[str, weights.Delta]) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Shapes of A and B by module, of all that any agent sent."""
    layout: dict[str, tuple[torch.Size, torch.Size]] = {}
    for agent, delta in deltas.items():
        for path, step in delta.items():
            shapes = step.a.shape, step.b.shape
            if layout.setdefault(path, shapes) != shapes:
                raise errors.InvalidInputError(
                    f"{path}: agent {agent!r} sent A {tuple(shapes[0])} and B {tuple(shapes[1])}, "
                    f"another {tuple(layout[path][0])} and {tuple(layout[path][1])}"
                )
    return layout


def _flat(
    delta: weights.Delta, layout: Mapping[str, tuple[torch.Size, torch.Size]]
) -> torch.Tensor:
    parts = []
    for path, shapes in layout.items():
        if path in delta:
            parts += [delta[path].a.detach().reshape(-1), delta[path].b.detach().reshape(-1)]
        else:
            parts += [torch.zeros(shape.numel()) for shape in shapes]
    return torch.cat(parts).float() if parts else torch.zeros(0)


def _split(
    flat: torch.Tensor, layout: Mapping[str, tuple[torch.Size, torch.Size]]
) -> weights.Delta:
    sizes = [shape.numel() for shapes in layout.values() for shape in shapes]
    parts = iter(flat.split(sizes))
    return {
        path: weights.Factors(next(parts).view(a), next(parts).view(b))
        for path, (a, b) in layout.items()
    }


def _sorted(rows_N_P: torch.Tensor) -> torch.Tensor:
    """Each column in rising order, by odd-even transposition (Knuth 1973, 5.3.4).

    N rounds of minima and maxima of whole rows: for the few rows of a swarm many times as fast as
    sorting every column by itself.
    """
    held = rows_N_P.clone()
    count = len(held)
    for turn in range(count):
        low = held[turn % 2 : count - 1 : 2]
        high = held[turn % 2 + 1 : count : 2]
        if len(high):
            least = torch.minimum(low, high)
            torch.maximum(low, high, out=high)
            low.copy_(least)
    return held


def _middle(rows_N_P: torch.Tensor, settings: AggregationSettings) -> torch.Tensor:
    """Mean of what is left of each column without its ends."""
    count = len(rows_N_P)
    cut = 0
    if count >= 3 and settings.method is Method.TRIMMED_MEAN and settings.trim > 0:
        cut = min(max(1, math.floor(settings.trim * count + 1e-9)), (count - 1) // 2)
    elif count >= 3 and settings.method is Method.MEDIAN:
        cut = (count - 1) // 2
    if cut == 0:
        return rows_N_P.mean(0)
    return torch.cat(
        [_sorted(part)[cut : count - cut].mean(0) for part in rows_N_P.split(_CHUNK, dim=1)]
    )


def _breadth(rows_N_P: torch.Tensor) -> float:
    """See `Combined.breadth`; agents that say nothing do not count."""
    products_N_N = (rows_N_P @ rows_N_P.T).double()
    lengths_N = products_N_N.diagonal().clamp_min(0.0).sqrt()
    kept = lengths_N > 0
    if int(kept.sum()) < 2:
        return 1.0
    lengths_N = lengths_N[kept]
    cosines_N_N = products_N_N[kept][:, kept] / torch.outer(lengths_N, lengths_N)
    return float(len(lengths_N) ** 2 / cosines_N_N.clamp(0.0, 1.0).sum())


def _cosines(rows_N_P: torch.Tensor) -> torch.Tensor:
    """(N,) float64: of each row with the coordinate-wise median of the others; 0 for zeros.

    All leave-one-out medians come from one sort. The median of the others is the mean of what is
    left of the middle, two or three places, when the own value is taken out of it; a value outside
    of the middle counts as the end of it that is on its side.
    """
    count = len(rows_N_P)
    half = count // 2
    sums = torch.zeros(3, count, dtype=torch.float64)
    for part in rows_N_P.split(_CHUNK, dim=1):
        order = _sorted(part)
        middle = order[(count - 1) // 2 - count % 2 : half + 1 + count % 2]
        own = torch.minimum(torch.maximum(part, middle[0]), middle[-1])
        others = (middle.sum(0) - own) / (len(middle) - 1)
        for at, (one, other) in enumerate(((part, others), (part, part), (others, others))):
            sums[at] += (one * other).sum(1)
    size = (sums[1] * sums[2]).sqrt()
    return torch.where(size > 0, sums[0] / size, 0.0)


def _outliers(cosines: Mapping[str, float], settings: AggregationSettings) -> dict[str, str]:
    """Agents that point elsewhere, worst first, fewer than half of all."""
    usual = statistics.median(cosines.values())
    least = settings.least_share * usual if usual >= settings.usual else settings.opposed
    worst = sorted(cosines, key=lambda agent: cosines[agent])[: (len(cosines) - 1) // 2]
    return {
        agent: f"its change has a cosine of {cosines[agent]:.2f} with the median of the others, "
        f"where at least {least:.2f} is asked and {usual:.2f} is usual"
        for agent in worst
        if cosines[agent] < least
    }
