"""`DynamicLoRALayer`: one layer of the hierarchy, a LoRA whose every parameter has an inertia.

Per tick and parameter, with gradient g (the pseudo-gradient of a round, as in FedOpt: Reddi et al.
2021), start value s and effective inertia i:

    w <- w + (1 - i) share g
    w <- w + decay (s - w)

Decay to the start rather than to zero as in L2-SP (Li et al. 2018), gated by importance as in
elastic weight consolidation (Kirkpatrick et al. 2017): 0.0001 for what is SCREENED, 0.01 for what
is FREE. What is screened has more inertia, too: i = i0 + (1 - i0) gain density.

Knows nothing about models, agents or services. Not safe for use by two threads at once; the weights
that it hands out are: they are never written to again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import torch

from shared import errors
from shared.hierarchy import (
    absorption,
    homeostasis,
    importance,
    layer_settings,
    levels,
    stacks,
)
from shared.hierarchy import weights as low_rank

_NUMBERS = struct.Struct("<dd?")
"""Threshold, its base, frozen."""


class DynamicLoRALayer:
    """A, B and their start values, interaction history, threshold, budget, phases, activity."""

    def __init__(
        self,
        level: levels.Level,
        shapes: Mapping[str, low_rank.Shape],
        spec: levels.Spec,
        settings: layer_settings.LayerSettings | None = None,
        seed: int = 0,
    ) -> None:
        """A layer at its start: A Kaiming-uniform, B zero, so that it adds nothing.

        Args:
            level: which of the five.
            shapes: module path to shape, in the order in which weights are to come.
            spec: rank and inertia.
            settings: constants and switches.
            seed: with level and path it gives A.

        Raises:
            errors.InvalidInputError: no modules, a rank below 1, or an inertia outside of [0, 1).
        """
        if not 0.0 <= spec.inertia < 1.0:
            raise errors.InvalidInputError(
                f"{level}: inertia is {spec.inertia}; it must be at least 0 and below 1"
            )
        self.level = level
        self.spec = spec
        self.settings = settings or layer_settings.LayerSettings()
        self.layout = stacks.Layout(shapes, spec.rank)
        self.frozen = False
        """Nothing changes the weights of a frozen layer; health sets this and takes it back."""
        self._start = self.layout.start(level, seed)
        self._stacks = [stack.clone() for stack in self._start]
        self._weights = self.layout.unpack(self._stacks)
        self._importance = importance.Importance(self.layout, self.settings)
        self._budget = homeostasis.Budget(self.layout, self.settings)
        self._threshold = self._base = self.settings.threshold
        self._activity = {
            path: torch.zeros(spec.rank, dtype=torch.bool) for path in self.layout.paths
        }

    @property
    def weights(self) -> low_rank.Weights:
        """The factors now; another object after each change, read-only."""
        return self._weights

    @property
    def activity(self) -> Mapping[str, torch.Tensor]:
        """The last activity mask: (rank,) bool by module path."""
        return self._activity

    @property
    def threshold(self) -> float:
        """Density from which a parameter is SCREENED.

        Setting it also sets the base to which it returns while entropy is healthy; it is kept
        between `least_threshold` and `most_threshold` of the settings.
        """
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        bounds = self.settings.least_threshold, self.settings.most_threshold
        self._threshold = self._base = min(bounds[1], max(bounds[0], value))

    @property
    def inertia(self) -> float:
        """The layer's own, which density adds to."""
        return self.spec.inertia if self.settings.use_inertia else 0.0

    def update(self, gradient: low_rank.Delta, share: float = 1.0) -> None:
        """One tick: the step and the decay above, after which the gradient joins the history.

        Args:
            gradient: changes of A and B; modules that are missing only decay. May be empty.
            share: of the gradient that is taken, 0 or more; decay does not depend on it.

        Raises:
            errors.NotFoundError: a module that the layer has not.
            errors.InvalidInputError: another shape than the layer's, NaN or infinity, or a negative
                share.
        """
        if not 0.0 <= share < float("inf"):
            raise errors.InvalidInputError(
                f"{self.level}: share is {share}; it must be finite and not negative"
            )
        steps = self.layout.pack(gradient)
        for step in steps:
            if not all(bool(torch.isfinite(part.sum())) for part in step.both):
                raise errors.InvalidInputError(
                    f"{self.level}: the gradient holds NaN or infinite values; leave its sender out"
                )
        if self.frozen:
            return
        rate = share * (1.0 - self.inertia)
        parts = zip(self._stacks, self._start, self._importance.history, steps, strict=True)
        self._replace(
            stacks.Stack(
                *(
                    self._importance.moved(held, start, history, step, rate, self._threshold)
                    for held, start, history, step in zip(*kinds, strict=True)
                )
            )
            for kinds in ([part.both for part in group] for group in parts)
        )
        if gradient:
            self._importance.note(steps)

    def compute_effective_inertia(self) -> Mapping[str, low_rank.Factors]:
        """Of each parameter now, in the shapes of the factors; the layer's own to below 1."""
        shields = (
            stacks.Stack(
                *(
                    self._importance.shield(held, self._threshold)
                    .mul_(1.0 - self.inertia)
                    .add_(self.inertia)
                    for held in history.both
                )
            )
            for history in self._importance.history
        )
        return self.layout.unpack(shields)

    def phases(self) -> Mapping[str, low_rank.Factors]:
        """`importance.Phase` of each parameter now, as numbers in the shapes of the factors."""
        return self.layout.unpack(
            stacks.Stack(
                *(
                    self._importance.screened(self._importance.density(held), self._threshold)
                    for held in history.both
                )
            )
            for history in self._importance.history
        )

    def maintain_homeostasis(self) -> homeostasis.Homeostasis:
        """Measures entropy, draws the spectrum to its budget, moves threshold and optimum.

        A few modules in turn, so that a tick stays cheap. A frozen layer is measured only.
        """
        changed = self._budget.measure(self._weights)
        if self.frozen:
            return homeostasis.Homeostasis(
                self._budget.mean, self._budget.optimum, self._budget.ratio, self._threshold
            )
        is_young = self._budget.is_young
        if self._budget.age == 0 or is_young:
            self._budget.slide()
        actions = []
        ratio = self._budget.ratio
        if changed:
            fresh = [stacks.Stack(stack.a, stack.b.clone()) for stack in self._stacks]
            for path, b in changed.items():
                number, row = self.layout.at(path)
                fresh[number].b[row] = b
            self._replace(fresh)
            low = ratio < self.settings.healthy_low
            actions.append(homeostasis.Action.FLATTENED if low else homeostasis.Action.SHARPENED)
        before = self._threshold
        self._threshold = homeostasis.steered(before, self._base, ratio, self.settings)
        if self._threshold != before:
            raised = self._threshold > before
            actions.append(
                homeostasis.Action.THRESHOLD_RAISED
                if raised
                else homeostasis.Action.THRESHOLD_LOWERED
            )
        report = homeostasis.Homeostasis(
            self._budget.mean, self._budget.optimum, ratio, self._threshold, tuple(actions)
        )
        if not is_young:
            self._budget.slide()
        return report

    def consolidate_circuit(self, pieces: low_rank.Weights) -> float:
        """Takes in a circuit from the layer below, so that the sum of both layers stays.

        What it fills is SCREENED from then on, and the entropy's optimum is found anew.

        Args:
            pieces: by module path, of any rank.

        Returns:
            The share of the energy (squared Frobenius norm) of this layer's modules together with
            the pieces that it holds now, 0 to 1; 1 where there was nothing to take in.

        Raises:
            errors.PreconditionError: the layer is frozen.
            errors.NotFoundError: a module that the layer has not.
            errors.InvalidInputError: another shape, or NaN or infinity.
        """
        self._ensure_not_frozen("take in a circuit")
        for path, piece in pieces.items():
            number, _ = self.layout.at(path)
            self.layout.check(path, piece, self.layout.groups[number].shape, piece.rank)
            if not bool(torch.isfinite(piece.a.sum() + piece.b.sum())):
                raise errors.InvalidInputError(f"{path}: the circuit holds NaN or infinite values")
        given = {path: piece for path, piece in pieces.items() if piece.rank}
        fresh = [stack.clone() for stack in self._stacks]
        energy = lost = 0.0
        for path, piece in given.items():
            number, row = self.layout.at(path)
            held = self._weights[path]
            start = self._start[number].a[row]
            found = absorption.absorb(held, piece, start, self.settings.weak_energy)
            fresh[number].a[row], fresh[number].b[row] = found.factors.a, found.factors.b
            energy, lost = energy + found.energy, lost + found.lost
            change = (found.factors.b - held.b)[found.channels].abs().mean()
            self._importance.raise_channels(number, row, found.channels, float(change))
        if given:
            self._replace(fresh)
            self._budget.reset(tuple(given))
        return 1.0 - lost / energy if energy > 0.0 else 1.0

    def release(self, channels: Mapping[str, Sequence[int]]) -> None:
        """Lets go of rank channels that have moved up: A at its start values, B 0, no history.

        Raises:
            errors.PreconditionError: the layer is frozen.
            errors.NotFoundError: a module that the layer has not.
            errors.InvalidInputError: a channel that it has not.
        """
        self._ensure_not_frozen("let go of channels")
        places = {path: self.layout.at(path) for path in channels}
        for path, numbers in channels.items():
            if any(not 0 <= at < self.spec.rank for at in numbers):
                raise errors.InvalidInputError(
                    f"{path}: channels {list(numbers)} are not all below the rank {self.spec.rank}"
                )
        fresh = [stack.clone() for stack in self._stacks]
        activity = dict(self._activity)
        for path, (number, row) in places.items():
            index = list(channels[path])
            fresh[number].a[row][:, index] = self._start[number].a[row][:, index]
            fresh[number].b[row][index] = 0.0
            self._importance.forget(number, row, index)
            activity[path] = activity[path].clone()
            activity[path][index] = False
        self._activity = activity
        if places:
            self._replace(fresh)
            self._budget.reset(tuple(places))

    def compute_activity_mask(
        self, inputs: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """Which rank channels contribute to the output on some inputs; `activity` from then on.

        Args:
            inputs: by module path what goes into the linear layer, (..., in_features).

        Returns:
            By module path, (rank,) bool; modules without inputs keep their last mask.

        Raises:
            errors.NotFoundError: a module that the layer has not.
        """
        found = dict(self._activity)
        for path, x in inputs.items():
            self.layout.at(path)
            share = self.settings.activity_share
            found[path] = absorption.activity(self._weights[path], x, share)
        self._activity = found
        return found

    def state(self) -> dict[str, torch.Tensor]:
        """All that `restore` needs, by name: float32, uint8 and int64; never written to again."""
        named: dict[str, torch.Tensor] = {}
        for number, stack in enumerate(self._stacks):
            history = self._importance.history[number].clone()
            named |= {
                f"{number}/a": stack.a,
                f"{number}/b": stack.b,
                f"{number}/start": self._start[number].a,
                f"{number}/history_a": history.a,
                f"{number}/history_b": history.b,
            }
        numbers = _NUMBERS.pack(self._threshold, self._base, self.frozen)
        return (
            named
            | self._budget.state()
            | {
                "activity": torch.stack(list(self._activity.values())).to(torch.uint8),
                "numbers": torch.frombuffer(bytearray(numbers), dtype=torch.uint8),
            }
        )

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up a state of a layer of the same modules and rank, to the bit.

        Raises:
            errors.IntegrityError: the state is of another layer; this one stays as it is.
        """
        own = self.state()
        wrong = [
            name
            for name in own
            if name not in state
            or state[name].shape != own[name].shape
            or state[name].dtype != own[name].dtype
        ]
        if wrong:
            raise errors.IntegrityError(
                f"{self.level}: the state lacks or misfits {', '.join(sorted(wrong)[:5])}; it is "
                f"of a layer of other modules or another rank"
            )
        held = {name: state[name].clone() for name in own}
        count = range(len(self._stacks))
        self._start = [stacks.Stack(held[f"{at}/start"], self._start[at].b) for at in count]
        self._importance.history = [
            stacks.Stack(held[f"{at}/history_a"], held[f"{at}/history_b"]) for at in count
        ]
        self._activity = dict(zip(self.layout.paths, held["activity"].bool(), strict=True))
        self._budget.restore(held)
        numbers = _NUMBERS.unpack(bytes(held["numbers"].tolist()))
        self._threshold, self._base, self.frozen = numbers
        self._replace(stacks.Stack(held[f"{at}/a"], held[f"{at}/b"]) for at in count)

    def _replace(self, fresh: Iterable[stacks.Stack]) -> None:
        self._stacks = list(fresh)
        self._weights = self.layout.unpack(self._stacks)

    def _ensure_not_frozen(self, what: str) -> None:
        if self.frozen:
            raise errors.PreconditionError(
                f"{self.level}: the layer is frozen and can't {what}; wait until health thaws it"
            )
