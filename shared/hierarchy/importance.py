"""Which parameters have been moved often, and so are shielded: interaction history and phases.

Importance-gated as in elastic weight consolidation (Kirkpatrick et al. 2017) and synaptic
intelligence (Zenke et al. 2017), but measured online from the size of the gradients: density
d = h / (h + mean h), where h is the moving average of |gradient| and the mean is over the
parameter's matrix, so that d is free of scale, 0 for what never moved and 0.5 for the average.
"""

from __future__ import annotations

import enum

import torch

from shared.hierarchy import layer_settings, stacks

_STRONG = 3.0
"""What a circuit brings counts as moved this many times as much as the average: density 0.75."""
_TINY = torch.finfo(torch.float32).tiny


class Phase(enum.IntEnum):
    """Of one parameter."""

    FREE = 0
    """Little used: goes back to the start soon."""
    SCREENED = 1
    """Important: shielded from decay and from fast change."""


class Importance:
    """The interaction history of a layer; changes in place."""

    def __init__(self, layout: stacks.Layout, settings: layer_settings.LayerSettings) -> None:
        """Nothing has moved."""
        self._settings = settings
        self.history = layout.zeros()
        """Moving average of |gradient|, as the layer's factors."""

    def density(self, history: torch.Tensor) -> torch.Tensor:
        """Interaction density.

        Args:
            history: (M, ...) of one kind of matrix.

        Returns:
            The same shape, 0 to below 1, a new tensor.
        """
        below = history + history.mean((1, 2), keepdim=True).clamp_min_(_TINY)
        return torch.div(history, below, out=below)

    def screened(self, density: torch.Tensor, threshold: float) -> torch.Tensor:
        """Which are SCREENED, as 0 or 1 in the shape and dtype of the density."""
        if not self._settings.use_screening:
            return torch.zeros_like(density)
        return density.clone().ge_(threshold)

    def moved(
        self,
        held: torch.Tensor,
        start: torch.Tensor,
        history: torch.Tensor,
        step: torch.Tensor,
        rate: float,
        threshold: float,
    ) -> torch.Tensor:
        """A kind of matrix after one tick: the step, shielded, and the decay to the start.

        Args:
            held: (M, ...), as the four below.
            start: values to which it decays.
            history: its own.
            step: gradient.
            rate: share of the gradient that is taken where nothing is shielded.
            threshold: density from which a parameter is SCREENED.

        Returns:
            A new tensor. Temporaries are reused, since memory is what takes the time.
        """
        density = self.density(history)
        screened = self.screened(density, threshold)
        after = torch.add(held, step, alpha=rate)
        if self._settings.use_density:
            after.addcmul_(density.mul_(screened), step, value=-self._settings.gain * rate)
        if self._settings.use_decay:
            free, kept = self._settings.decay_free, self._settings.decay_screened
            back = torch.sub(start, after, out=density)
            after.add_(back, alpha=free).addcmul_(screened, back, value=kept - free)
        return after

    def shield(self, history: torch.Tensor, threshold: float) -> torch.Tensor:
        """Share of the learning rate that density takes away, 0 to below 1, by parameter."""
        density = self.density(history)
        gain = self._settings.gain if self._settings.use_density else 0.0
        return self.screened(density, threshold).mul_(density).mul_(gain)

    def note(self, gradient: list[stacks.Stack]) -> None:
        """One interaction; the gradient is used up."""
        share = 1.0 - self._settings.memory
        for history, step in zip(self.history, gradient, strict=True):
            for held, moved in zip(history.both, step.both, strict=True):
                held.lerp_(moved.abs_(), share)

    def raise_channels(self, number: int, row: int, channels: list[int], change: float) -> None:
        """Makes channels important that were filled by something else than gradients.

        Args:
            number: of the stack.
            row: of the module in it.
            channels: rank channels.
            change: mean size by which their parameters changed.
        """
        share = 1.0 - self._settings.memory
        for held, dim in ((self.history[number].a[row], 1), (self.history[number].b[row], 0)):
            # Not more where something moved: else a large circuit would lay open the small ones.
            # Never above what is there: else each circuit raises the mean that marks the next.
            mark = min(_STRONG * float(held.mean()), float(held.max())) or share * change
            index = torch.tensor(channels)
            held.index_copy_(dim, index, held.index_select(dim, index).clamp_min(mark))

    def forget(self, number: int, row: int, channels: list[int]) -> None:
        """Channels that are back at the start never moved."""
        self.history[number].a[row][:, channels] = 0.0
        self.history[number].b[row][channels] = 0.0
