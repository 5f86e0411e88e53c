"""Keeps a layer's spectrum within its entropy budget, and its screening threshold with it.

Entropy is spectral entropy of the singular values of A B. Its optimum, the budget, is a share
("evenness", after Pielou 1966) of the most that the rank channels in use allow, and follows what is
measured, slowly: a sliding set point as in homeostatic plasticity (Bienenstock, Cooper and Munro
1982). A sudden fall is a layer that crystallises into one direction, a sudden rise one that
dissolves into noise; a slow change is learning.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import struct
from collections.abc import Mapping

import torch

from shared.hierarchy import layer_settings, spectrum, stacks, weights

_MOST_CUT = 0.5
"""A singular value keeps at least this share per tick."""
_NUMBERS = struct.Struct("<ddqqq")
"""Evenness, floor, age, ticks and turn of a budget."""


class Action(enum.StrEnum):
    """What homeostasis did to a layer."""

    FLATTENED = "flattened"
    """Runaway directions were drawn to the mean, since entropy was low."""
    SHARPENED = "sharpened"
    """Weak directions were weakened, since entropy was high."""
    THRESHOLD_RAISED = "threshold_raised"
    """Less is screened."""
    THRESHOLD_LOWERED = "threshold_lowered"
    """More is screened."""


@dataclasses.dataclass(frozen=True)
class Homeostasis:
    """The state of a layer after a tick."""

    entropy: float
    """Mean over the modules that hold something, in nats; 0 where none does."""
    optimum: float
    """The budget, in nats."""
    ratio: float
    """Entropy over optimum; 1 for a layer that holds nothing, or one direction in each module."""
    threshold: float
    """For screening, from now on."""
    actions: tuple[Action, ...] = ()


class Budget:
    """The entropy of a layer's modules against a sliding set point."""

    def __init__(self, layout: stacks.Layout, settings: layer_settings.LayerSettings) -> None:
        """Nothing is measured."""
        self._layout = layout
        self._settings = settings
        count = len(layout.paths)
        self.entropy = torch.zeros(count, dtype=torch.float64)
        """Of each module when it was last measured, in nats."""
        self.most = torch.zeros(count, dtype=torch.float64)
        """Logarithm of the number of channels in use then, at most of features."""
        self.stale = torch.ones(count, dtype=torch.bool)
        """Never measured, or changed by more than updates since."""
        self.evenness = 1.0
        """The set point, 0 to 1."""
        self.floor = settings.least_evenness
        """Of the set point: the settings', or what the set point began with where that is less."""
        self.age = 0
        """Ticks that the set point has followed; 0: it takes what it finds next."""
        self.ticks = 0
        """In which the layer held something."""
        self.turn = 0
        """The module to measure next."""

    def reset(self, paths: tuple[str, ...]) -> None:
        """A circuit came or went: measure the modules anew, and take that as the optimum."""
        places = {path: at for at, path in enumerate(self._layout.paths)}
        self.stale[[places[path] for path in paths]] = True
        self.age = 0

    @property
    def is_young(self) -> bool:
        """Whether the layer has only begun to learn."""
        return self.ticks < self._settings.settling_ticks

    @property
    def optimum(self) -> float:
        """Mean over the modules in use, nats."""
        used = int((self.most > 0).sum())
        return self.evenness * float(self.most.sum()) / used if used else 0.0

    @property
    def mean(self) -> float:
        """Of the entropy over the modules in use, nats."""
        used = int((self.most > 0).sum())
        return float(self.entropy.sum()) / used if used else 0.0

    @property
    def ratio(self) -> float:
        """Entropy over optimum."""
        optimum = self.optimum
        return self.mean / optimum if optimum > 0 else 1.0

    def slide(self) -> None:
        """Moves the set point towards what was measured."""
        most = float(self.most.sum())
        if most <= 0:
            return
        found = float(self.entropy.sum()) / most
        if self.age == 0 or self.is_young:
            self.floor = min(self._settings.least_evenness, found)
        rate = 1.0 if self.is_young else max(1.0 / (self.age + 1), self._settings.budget_rate)
        self.age, self.ticks = self.age + 1, self.ticks + 1
        evenness = self.evenness + rate * (found - self.evenness)
        self.evenness = min(1.0, max(self.floor, evenness))

    def due(self) -> list[str]:
        """Modules to measure in this tick: those that are stale, and the next few in turn."""
        paths = self._layout.paths
        wanted = [paths[at] for at in self.stale.nonzero()[:, 0].tolist()]
        count = min(self._settings.modules_per_tick, len(paths))
        turn = [paths[(self.turn + step) % len(paths)] for step in range(count)]
        self.turn = (self.turn + count) % len(paths)
        return list(dict.fromkeys([*wanted, *turn]))

    def measure(self, held: weights.Weights) -> dict[str, torch.Tensor]:
        """Measures the modules that are due.

        Returns:
            By path, a new B (rank, out_features) of those that are to change: the spectrum is drawn
            towards its budget where the layer was last seen outside of its healthy range.
        """
        places = {path: at for at, path in enumerate(self._layout.paths)}
        together: dict[weights.Shape, list[str]] = {}
        for path in self.due():
            a, b = held[path].a, held[path].b
            together.setdefault(weights.Shape(len(a), b.shape[1]), []).append(path)
        found = []
        for shape, paths in together.items():
            a_M_I_R = torch.stack([held[path].a for path in paths])
            b_M_R_O = torch.stack([held[path].b for path in paths])
            entropy_M = spectrum.entropy(spectrum.singular_values(a_M_I_R, b_M_R_O))
            used_M = ((a_M_I_R != 0).any(1) & (b_M_R_O != 0).any(2)).sum(1)
            most_M = used_M.clamp(1, min(dataclasses.astuple(shape))).double().log()
            index = torch.tensor([places[path] for path in paths])
            self.entropy[index], self.most[index], self.stale[index] = entropy_M, most_M, False
            found.append((paths, a_M_I_R, b_M_R_O, entropy_M / most_M.clamp_min(1e-9)))
        side = self._side()
        changed: dict[str, torch.Tensor] = {}
        if side == 0 or not self._settings.use_budget or self.age == 0:
            return changed
        for paths, a_M_I_R, b_M_R_O, evenness_M in found:
            outside_M = (evenness_M - self.evenness) * side > 0
            if bool(outside_M.any()):
                rule = functools.partial(self._factors, side=side)
                new = spectrum.reshaped(a_M_I_R, b_M_R_O, rule)
                changed |= {path: new[row] for row, path in enumerate(paths) if outside_M[row]}
        return changed

    def state(self) -> dict[str, torch.Tensor]:
        """What `restore` needs: int64 and uint8."""
        numbers = _NUMBERS.pack(self.evenness, self.floor, self.age, self.ticks, self.turn)
        return {
            "budget/entropy": self.entropy.clone().view(torch.int64),
            "budget/most": self.most.clone().view(torch.int64),
            "budget/stale": self.stale.to(torch.uint8),
            "budget/numbers": torch.frombuffer(bytearray(numbers), dtype=torch.uint8),
        }

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up a state, to the bit."""
        self.entropy = state["budget/entropy"].clone().view(torch.float64)
        self.most = state["budget/most"].clone().view(torch.float64)
        self.stale = state["budget/stale"].bool()
        numbers = _NUMBERS.unpack(bytes(state["budget/numbers"].tolist()))
        self.evenness, self.floor, self.age, self.ticks, self.turn = numbers

    def _side(self) -> int:
        """-1 below the healthy range, 1 above it, else 0."""
        ratio = self.ratio
        return int(ratio > self._settings.healthy_high) - int(ratio < self._settings.healthy_low)

    def _factors(self, values_M_R: torch.Tensor, side: int) -> torch.Tensor:
        """(mean / s)^c for what is above the mean, or (s / mean)^c for what is below; else 1."""
        mean = values_M_R.mean(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        relative = (values_M_R / mean).clamp_min(1e-12)
        bounded = relative.clamp_max(1.0) if side > 0 else relative.clamp_min(1.0).reciprocal()
        return bounded.pow(self._settings.correction).clamp_min(_MOST_CUT)


def steered(
    threshold: float, base: float, ratio: float, settings: layer_settings.LayerSettings
) -> float:
    """The screening threshold for the next tick.

    Entropy below its healthy range: screen less, so that what dominates lets go; above: screen
    more, so that what is weak and unused fades beside what is kept; within: back to the base.
    """
    if not settings.use_adaptive_threshold:
        return threshold
    step = settings.threshold_step
    if ratio < settings.healthy_low:
        threshold += step
    elif ratio > settings.healthy_high:
        threshold -= step
    else:
        threshold += math.copysign(min(step / 10, abs(base - threshold)), base - threshold)
    return min(settings.most_threshold, max(settings.least_threshold, threshold))
