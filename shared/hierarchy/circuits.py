"""`CircuitDetector`: which rank channels of a layer a recurring pattern of activity runs through.

One detector a layer of an agent. It watches generations (signatures and the activity of the
layer's rank channels), finds the patterns that recur, and offers for each the channels that answer
to it as a circuit fit to move up. Who moves it is the migration queue's business.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import torch

from shared import errors
from shared.hierarchy import levels, messages, recurrence, states, trajectories, weights


@dataclasses.dataclass(frozen=True)
class CircuitSettings:
    """What counts as a circuit."""

    window: int = 100
    """Generations that are looked back on."""
    least_seen: int = 20
    """Generations before anything is offered: of few, chance alone makes patterns."""
    threshold: float = 0.7
    """Recurrence from which on a pattern is offered."""
    same: float = 0.8
    """Cosine from which on two signatures are one pattern. On the embedded base 90 % of the pairs
    of wordings of one question are, and 2 % of other pairs; with a background taken away 0.55."""
    fewest: int = 4
    """Generations with the pattern."""
    energy_share: float = 0.9
    """Of the layer's response to the pattern, which a circuit's channels are to explain."""
    least_share: float = 0.1
    """Of the response; a circuit that explains less isn't offered."""
    most_channels: int = 16
    """Of a circuit. What is left of the pattern's response is offered another time."""
    most_waiting: int = 16
    """Circuits that were offered and haven't moved."""
    rest: int = 100
    """Generations after a move in which the same pattern isn't offered again."""
    swarm_rate: float = 0.05
    """Share of the cache's recent trajectories that hit and are of the pattern, from which on its
    circuit may travel to the swarm; below, to the agent layer."""
    domain_rate: float = 0.2
    """The same for the domain, above which no circuit of an agent goes."""


def activity(inputs: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """The activity of a module's rank channels in one generation, for `observe`.

    Args:
        inputs: (positions, in_features).
        a: (in_features, rank).

    Returns:
        (rank,), float32: root mean square of `inputs @ a` over the positions. A plain mean would
        let positions cancel.
    """
    return (inputs.float() @ a.float()).square().mean(dim=0).sqrt()


def cut(layer: weights.Weights, channels: Mapping[str, Sequence[int]]) -> weights.Weights:
    """The factors of some of a layer's channels, as copies."""
    return {
        path: weights.Factors(
            layer[path].a[:, list(numbers)].clone(), layer[path].b[list(numbers)].clone()
        )
        for path, numbers in channels.items()
    }


def refreshed(circuit: messages.Circuit, layer: weights.Weights) -> messages.Circuit:
    """The circuit as its layer has it now: while it waited, its channels went on learning."""
    return dataclasses.replace(circuit, pieces=cut(layer, circuit.channels))


@dataclasses.dataclass(frozen=True, eq=False)
class _Offer:
    prototype: torch.Tensor
    channels: Mapping[str, tuple[int, ...]]


class CircuitDetector:
    """Finds the circuits of one layer of one agent; for one thread at a time.

    A channel's response energy to a pattern is the mean, over the generations with the pattern, of
    its squared activity times the squared norm of its row of B: what the channel adds to its
    module's output, squared. Energies of several channels are added as if their rows of B were
    orthogonal. A circuit is the smallest set of channels that explains the wanted share of the
    layer's energy; channels of circuits that wait belong to no other one, since moving a channel
    twice would count it twice.
    """

    def __init__(
        self, agent: str, level: levels.Level, settings: CircuitSettings | None = None
    ) -> None:
        """Nothing seen yet.

        Args:
            agent: whose layer it is.
            level: which of its layers.
            settings: what counts as a circuit.
        """
        self._agent = agent
        self._level = level
        self._settings = settings or CircuitSettings()
        self._clear()

    def _clear(self) -> None:
        window = self._settings.window
        self._ranks: dict[str, int] = {}
        self._signatures: collections.deque[torch.Tensor] = collections.deque(maxlen=window)
        self._activities: collections.deque[torch.Tensor] = collections.deque(maxlen=window)
        """(channels,) each: those of all modules, one after the other."""
        self._waiting: dict[str, _Offer] = {}
        self._resting: collections.deque[tuple[int, torch.Tensor]] = collections.deque(maxlen=64)
        """Until which observation, and the prototype."""
        self._observed = 0
        self._offered = 0

    @property
    def waiting(self) -> tuple[str, ...]:
        """Ids of circuits that were offered, and neither `moved` nor `dropped` since."""
        return tuple(self._waiting)

    def observe(
        self, signature: torch.Tensor, channel_activity: Mapping[str, torch.Tensor]
    ) -> None:
        """Takes in one generation.

        Args:
            signature: (S,), as from `signatures.sketch`.
            channel_activity: path to (rank,) as from `activity`, of the same modules each time.

        Raises:
            errors.InvalidInputError: other modules, ranks or size than before, or not finite.
        """
        ranks = {path: len(channel_activity[path]) for path in sorted(channel_activity)}
        flat = torch.cat([torch.empty(0), *(channel_activity[path].cpu() for path in ranks)])
        where = f"circuits of {self._agent!r}, layer {self._level}"
        if not bool(torch.isfinite(signature).all() and torch.isfinite(flat).all()):
            raise errors.InvalidInputError(f"{where}: activity is not finite: leave it out")
        if self._ranks and (ranks != self._ranks or signature.shape != self._signatures[-1].shape):
            raise errors.InvalidInputError(
                f"{where}: activity of other modules or ranks than before; begin a new detector"
            )
        self._ranks = ranks
        self._signatures.append(signature.detach().float().cpu().clone())
        self._activities.append(flat.detach().float())
        self._observed += 1

    def patterns(self) -> list[recurrence.Pattern]:
        """All patterns of the window, recurring or not, those that recur most first.

        None before `least_seen` generations.
        """
        if len(self._signatures) < self._settings.least_seen:
            return []
        stacked = torch.stack(list(self._signatures))
        return recurrence.patterns(stacked, self._settings.same, self._settings.fewest)

    def detect(
        self, layer: weights.Weights, cache: trajectories.TrajectoryCache
    ) -> list[messages.Circuit]:
        """Offers the circuits that are fit to move up, those that recur most first.

        A pattern is offered when its recurrence reaches the threshold, none like it waits or rests,
        and its hit rate lets it travel above this layer. Each offer waits until `moved` or
        `dropped` is told of it. Save the state before the circuits leave this process: ids are
        numbered by it.

        Raises:
            errors.InvalidInputError: the layer hasn't the modules and ranks that were observed.
        """
        if self._ranks != {path: layer[path].rank for path in sorted(layer)} and self._ranks:
            raise errors.InvalidInputError(
                f"circuits of {self._agent!r}: layer {self._level} has other modules or ranks than "
                "the activity that was observed; begin a new detector"
            )
        found = []
        for pattern in self.patterns():
            if len(self._waiting) >= self._settings.most_waiting:
                break
            if pattern.recurrence >= self._settings.threshold and not self._known(
                pattern.prototype
            ):
                circuit = self._circuit(pattern, layer, cache)
                if circuit is not None:
                    self._waiting[circuit.id] = _Offer(pattern.prototype, circuit.channels)
                    found.append(circuit)
        return found

    def moved(self, circuit: str, cache: trajectories.TrajectoryCache | None = None) -> int:
        """A circuit has left the layer, which has let go of its channels; unknown ids do nothing.

        Args:
            circuit: its id.
            cache: whose trajectories of its pattern count as consolidated from now on; leave it
                out while the circuit is still in a layer that forgets fast.

        Returns:
            How many trajectories were marked.
        """
        offer = self._waiting.pop(circuit, None)
        if offer is None:
            return 0
        self._resting.append((self._observed + self._settings.rest, offer.prototype))
        gone = self._mask(offer.channels)
        for activity in self._activities:
            activity[gone] = 0
        if cache is None:
            return 0
        alike = cache.similar(offer.prototype, self._settings.same)
        return cache.consolidate([key for key, _ in alike])

    def dropped(self, circuit: str) -> None:
        """A circuit will not move after all; its pattern may be offered again."""
        self._waiting.pop(circuit, None)

    def top(self, hit_rate: float) -> levels.Level:
        """How far up a circuit may travel whose pattern has this hit rate."""
        if hit_rate >= self._settings.domain_rate:
            return levels.Level.DOMAIN
        return levels.Level.SWARM if hit_rate >= self._settings.swarm_rate else levels.Level.AGENT

    def state(self) -> states.State:
        """All of it, for `restore`."""
        record = {
            "ranks": self._ranks,
            "observed": self._observed,
            "offered": self._offered,
            "waiting": {name: offer.channels for name, offer in self._waiting.items()},
            "resting": [until for until, _ in self._resting],
        }
        groups = {
            "signatures": list(self._signatures),
            "activities": list(self._activities),
            "waiting": [offer.prototype for offer in self._waiting.values()],
            "resting": [prototype for _, prototype in self._resting],
        }
        return states.pack(record, groups)

    def restore(self, state: states.State) -> None:
        """Takes over a state, in place of what was seen.

        Raises:
            errors.IntegrityError: the state does not fit together.
        """
        record, groups = states.unpack(state)
        self._clear()
        self._ranks = record["ranks"]
        self._observed, self._offered = record["observed"], record["offered"]
        self._signatures.extend(groups["signatures"])
        self._activities.extend(groups["activities"])
        waiting = zip(record["waiting"].items(), groups["waiting"], strict=True)
        for (name, channels), prototype in waiting:
            numbers = {path: tuple(numbers) for path, numbers in channels.items()}
            self._waiting[name] = _Offer(prototype, numbers)
        self._resting.extend(zip(record["resting"], groups["resting"], strict=True))

    def _known(self, prototype: torch.Tensor) -> bool:
        resting = [held for until, held in self._resting if until > self._observed]
        waiting = [offer.prototype for offer in self._waiting.values()]
        return any(float(held @ prototype) >= self._settings.same for held in resting + waiting)

    def _circuit(
        self,
        pattern: recurrence.Pattern,
        layer: weights.Weights,
        cache: trajectories.TrajectoryCache,
    ) -> messages.Circuit | None:
        top = self.top(cache.hit_rate(pattern.prototype, self._settings.same))
        if levels.LEVELS.index(top) >= levels.LEVELS.index(self._level):
            return None
        chosen = self._channels(pattern, layer)
        if not chosen:
            return None
        self._offered += 1
        # The number tells the agent's detectors apart: each counts in steps of all layers.
        number = self._offered * len(levels.LEVELS) + levels.LEVELS.index(self._level)
        return messages.Circuit(
            id=f"{self._agent}:{number}",
            agent=self._agent,
            level=self._level,
            top=top,
            channels=chosen,
            pieces=cut(layer, chosen),
            autocorrelation=pattern.recurrence,
            hits=cache.hits_like(pattern.prototype, self._settings.same),
        )

    def _channels(
        self, pattern: recurrence.Pattern, layer: weights.Weights
    ) -> dict[str, tuple[int, ...]]:
        """The smallest set of free channels that explains enough of the response; maybe none."""
        rows = torch.stack(list(self._activities))[pattern.present]
        norms = torch.cat([layer[path].b.float().square().sum(dim=1) for path in self._ranks])
        energies = rows.double().square().mean(dim=0) * norms.double()
        total = float(energies.sum())
        for offer in self._waiting.values():
            energies[self._mask(offer.channels)] = 0
        ordered, order = energies.sort(descending=True, stable=True)
        explained = ordered.cumsum(dim=0)
        enough = int((explained < self._settings.energy_share * total).sum()) + 1
        count = min(enough, self._settings.most_channels, int((ordered > 0).sum()))
        if count == 0 or float(explained[count - 1]) < self._settings.least_share * total:
            return {}
        chosen = set(order[:count].tolist())
        found: dict[str, tuple[int, ...]] = {}
        start = 0
        for path, rank in self._ranks.items():
            numbers = tuple(at for at in range(rank) if start + at in chosen)
            found |= {path: numbers} if numbers else {}
            start += rank
        return found

    def _mask(self, channels: Mapping[str, Sequence[int]]) -> torch.Tensor:
        """(channels,), bool, over all modules."""
        parts = []
        for path, rank in self._ranks.items():
            part = torch.zeros(rank, dtype=torch.bool)
            part[list(channels.get(path, ()))] = True
            parts.append(part)
        return torch.cat(parts)
