"""The constants of a layer, and which of its mechanisms work."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """Of `DynamicLoRALayer`; the first switches take a mechanism away, for ablations."""

    use_inertia: bool = True
    """Off: a layer's own inertia is 0, so that all layers learn equally fast."""
    use_density: bool = True
    """Off: interaction density does not raise the inertia of what is screened."""
    use_screening: bool = True
    """Off: every parameter is FREE."""
    use_decay: bool = True
    """Off: nothing goes back to the start."""
    use_adaptive_threshold: bool = True
    """Off: the screening threshold stays where it is put."""
    use_budget: bool = True
    """Off: the spectrum is measured and left as it is."""

    memory: float = 0.998
    """What the interaction history keeps per update; 0 to below 1."""
    gain: float = 0.5
    """Share of the learning rate that a density of 1 takes away; 0 to 1."""
    threshold: float = 0.5
    """Density from which a parameter is SCREENED; 0.5 is the mean of its matrix."""
    least_threshold: float = 0.1
    most_threshold: float = 0.9
    threshold_step: float = 0.01
    """Per tick outside of the healthy range; a tenth of it back to `threshold` within."""
    decay_screened: float = 0.0001
    """Per tick, of the way to the start."""
    decay_free: float = 0.01

    healthy_low: float = 0.8
    """Of the optimum of the entropy."""
    healthy_high: float = 1.2
    settling_ticks: int = 10
    """In which the optimum is the entropy that is found: a layer that has only begun to learn
    forgets nothing when its first directions are joined by others."""
    budget_rate: float = 0.1
    """Per tick, by which the optimum follows the entropy."""
    least_evenness: float = 0.1
    """Lowest optimum to which the entropy may draw it, as a share of that of equal values."""
    correction: float = 0.02
    """Exponent with which singular values are drawn to their mean, or from it, per tick."""
    modules_per_tick: int = 2
    """Spectra that are computed per tick, in turn; those of changed circuits come on top."""

    weak_energy: float = 0.001
    """Share of the energy that may be overwritten when a circuit takes whole channels."""
    activity_share: float = 0.1
    """Of the most active channel; from there on a channel counts as active."""
