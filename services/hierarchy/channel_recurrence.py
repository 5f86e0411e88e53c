"""Which rank channels of a shared layer are moved the same way again and again.

What recurs over ticks is fit for the next slower layer. A channel j adds A_j B_j to its module, and
a tick moves that by dA_j B_j + A_j dB_j; the direction is kept as a small two-sided random sketch,
so that cosines between ticks are those of the products (Johnson and Lindenstrauss 1984). The mean
over all lags of the autocorrelation of a series of unit vectors is the squared length of their
mean, less what a mean of so few has by chance; the mean is exponential, over a window of ticks.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Collection, Mapping

import torch
from torch.nn import functional

from shared.hierarchy import levels, messages, weights

_SKETCH = 8
"""Sketch of one side: cosines are kept to about 1 / 8."""


@dataclasses.dataclass(frozen=True)
class RecurrenceSettings:
    """When a channel of a shared layer is a circuit."""

    window: int = 100
    """Ticks."""
    threshold: float = 0.7
    """Autocorrelation from which a channel is one."""
    least_ticks: int = 16
    """In which it moved, before it is judged."""
    circuits_per_tick: int = 4
    """Of one layer; the most recurrent ones."""
    most_waiting: int = 8
    """In the queue out of a layer, from which its own circuits wait to be found: none is offered
    that would not find a place, or keep an agent's from one."""


class ChannelRecurrence:
    """The mean direction of change of each channel of one layer."""

    def __init__(
        self,
        level: levels.Level,
        shapes: Mapping[str, weights.Shape],
        rank: int,
        settings: RecurrenceSettings,
    ) -> None:
        """Nothing has moved."""
        self._level, self._shapes, self._settings = level, shapes, settings
        self._places = {path: at for at, path in enumerate(shapes)}
        self._mean = torch.zeros(len(shapes), rank, _SKETCH * _SKETCH)
        self._ticks = torch.zeros(len(shapes), rank, dtype=torch.int64)

    def note(self, before: weights.Weights, change: weights.Delta) -> None:
        """Takes in one tick.

        Args:
            before: the layer's factors.
            change: of A and B; all modules.
        """
        steps = []
        for path, shape in self._shapes.items():
            inner, outer = _sketches(path, shape)
            was, step = before[path], change[path]
            # A channel is one (8, 8) sketch, a sum of two outer products.
            left = torch.stack([(inner @ step.a).T, (inner @ was.a).T], dim=2)
            right = torch.stack([was.b @ outer.T, step.b @ outer.T], dim=1)
            steps.append(torch.bmm(left, right).flatten(1))
        unit = functional.normalize(torch.stack(steps), dim=2)
        moves = unit.square().sum(2) > 0
        keep = 1.0 - 2.0 / (self._settings.window + 1)
        mean = torch.lerp(unit, self._mean, keep)
        self._mean = torch.where(moves[:, :, None], mean, self._mean)
        self._ticks = self._ticks + moves

    def autocorrelation(self) -> torch.Tensor:
        """Of each channel, (modules, rank), 0 to 1; 0 for those that hardly ever moved."""
        keep = 1.0 - 2.0 / (self._settings.window + 1)
        left = torch.pow(torch.tensor(keep, dtype=torch.float64), self._ticks.double())
        whole = (1.0 - left).clamp_min(1e-12)
        chance = (1.0 - keep) * (1.0 + left) / ((1.0 + keep) * whole)
        square = self._mean.double().square().sum(2) / whole.square()
        found = ((square - chance) / (1.0 - chance).clamp_min(1e-12)).clamp(0.0, 1.0)
        return torch.where(self._ticks >= self._settings.least_ticks, found, 0.0)

    def circuits(
        self, layer: weights.Weights, busy: Collection[tuple[str, int]] = ()
    ) -> list[messages.Circuit]:
        """The channels that recur most, each a circuit that may go one level up.

        Args:
            layer: the factors now; a channel weaker than its module's mean is none.
            busy: modules and channels of them that wait to move already.
        """
        found = self.autocorrelation()
        pairs = [layer[path] for path in self._shapes]
        size = torch.stack([pair.a.norm(dim=0) * pair.b.norm(dim=1) for pair in pairs])
        strong = (size >= size.mean(1, keepdim=True)) & (size > 0)
        found = torch.where(strong, found, 0.0)
        for path, channel in busy:
            found[self._places[path], channel] = 0.0
        found = found.flatten()
        best = found.argsort(descending=True, stable=True)[: self._settings.circuits_per_tick]
        return [
            self._circuit(layer, divmod(at, size.shape[1]), float(found[at]))
            for at in best.tolist()
            if float(found[at]) >= self._settings.threshold
        ]

    def forget(self, channels: Mapping[str, tuple[int, ...]]) -> None:
        """Channels that were let go of begin anew."""
        self._mean, self._ticks = self._mean.clone(), self._ticks.clone()
        for path, numbers in channels.items():
            self._mean[self._places[path], list(numbers)] = 0.0
            self._ticks[self._places[path], list(numbers)] = 0

    def state(self) -> dict[str, torch.Tensor]:
        """All that `restore` needs; never written to again."""
        return {"mean": self._mean, "ticks": self._ticks}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up a state, to the bit."""
        self._mean, self._ticks = state["mean"], state["ticks"]

    def _circuit(
        self, layer: weights.Weights, place: tuple[int, int], autocorrelation: float
    ) -> messages.Circuit:
        module, channel = place
        path = list(self._shapes)[module]
        above = self._level.above
        pair = layer[path]
        return messages.Circuit(
            id=f"{self._level}:{path}:{channel}",
            agent="",
            level=self._level,
            top=above or self._level,
            channels={path: (channel,)},
            pieces={
                path: weights.Factors(
                    pair.a[:, channel : channel + 1].clone(),
                    pair.b[channel : channel + 1].clone(),
                )
            },
            autocorrelation=autocorrelation,
            hits=int(self._ticks[module, channel]),
        )


@functools.lru_cache(maxsize=4096)
def _sketches(path: str, shape: weights.Shape) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(zlib.crc32(path.encode()))
    sides = (shape.in_features, shape.out_features)
    inner, outer = (torch.randn(_SKETCH, side, generator=draw) for side in sides)
    return inner, outer
