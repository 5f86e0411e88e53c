"""The two stages of a tick for circuits: which are fit to move up, and moving those that may."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import structlog
import torch

from services.hierarchy import state as states
from shared.hierarchy import circuits, levels, messages, migration_queue, weights
from shared.hierarchy.levels import Level

if TYPE_CHECKING:
    from services.hierarchy import tick

_log = structlog.get_logger(__name__)
_HELD = 0.5
"""Cosine to a piece, from which a channel of the layer that took it in holds it."""


def detect(work: tick.Work) -> None:
    """Queues the circuits that agents offer, and those of shared layers that recur over ticks."""
    state = work.state
    for one in work.gathered.submissions:
        said = work.vertical.get(one.agent)
        fast = said is not None and said.mark is messages.Mark.FAST_TRACK
        for circuit in one.circuits:
            # An agent may not help itself: who is on the fast track vertical resonance says, an
            # emergency is an operator's, and no circuit of an agent goes past the domain.
            top = max(circuit.top, Level.DOMAIN, key=levels.LEVELS.index)
            _offer(work, dataclasses.replace(circuit, top=top, fast_track=fast, critical=False))
    for circuit in work.gathered.circuits.values():
        _offer(work, circuit)
    for level, recurring in state.recurrences.items():
        if level in work.combined:
            recurring.note(work.before.layers[level], work.combined[level])
        busy = _busy(state, level)
        room = state.settings.recurrence.most_waiting - state.coordinator.stats[level].depth
        for circuit in recurring.circuits(state.layers[level].weights, busy)[: max(0, room)]:
            # No agent's name begins like that.
            _offer(work, dataclasses.replace(circuit, id=f"@{state.ticks}:{circuit.id}"))


def migrate(work: tick.Work) -> None:
    """Moves what the coordinator lets through; a circuit goes on in the layer that took it in."""
    state = work.state
    closed = {level for level, own in state.layers.items() if own.frozen}
    for move in state.coordinator.tick(closed):
        circuit = move.circuit
        source = state.layers.get(circuit.level)
        if source is not None:
            circuit = circuits.refreshed(circuit, source.weights)
        kept = state.layers[move.target].consolidate_circuit(circuit.pieces)
        if source is not None:
            source.release(circuit.channels)
            state.recurrences[circuit.level].forget(circuit.channels)
        work.moved.append(circuit)
        _log.info(
            "circuit moved",
            circuit=circuit.id,
            source=circuit.level.value,
            target=move.target.value,
            energy_kept=round(kept, 4),
        )
        if onward := _onward(circuit, move.target, state.layers[move.target].weights):
            _offer(work, onward)


def _offer(work: tick.Work, circuit: messages.Circuit) -> None:
    work.offered_circuits += 1
    if circuit.level is Level.AGENT and (path := _outsized(work, circuit)):
        size = weights.norm({path: circuit.pieces[path]})
        _log.warning("circuit refused", circuit=circuit.id, module=path, norm=round(size, 3))
        work.rejected_circuits += 1
    elif work.state.coordinator.offer(circuit) in _NO_PLACE:
        work.rejected_circuits += 1
        work.placeless_circuits += 1


def _outsized(work: tick.Work, circuit: messages.Circuit) -> str:
    """A module whose piece is too large; empty where none is.

    Aggregation clips what an agent changes; a circuit goes past that, and so is held against what
    all agents together have brought into the shared layers.
    """
    settings, layers = work.state.settings, work.before.layers.values()
    for path, piece in circuit.pieces.items():
        whole = weights.norm(
            weights.summed([{path: layer[path]} for layer in layers], [1.0] * len(layers))
        )
        most = max(settings.free_piece_norm, settings.most_piece_share * whole)
        if not weights.norm({path: piece}) <= min(most, settings.most_piece_norm):
            return path
    return ""


_NO_PLACE = (migration_queue.Offer.FULL, migration_queue.Offer.AGENT_FULL)


def _busy(state: states.State, level: Level) -> set[tuple[str, int]]:
    """Channels of a layer that wait to move."""
    return {
        (path, channel)
        for circuit in state.coordinator.waiting
        if circuit.level is level
        for path, numbers in circuit.channels.items()
        for channel in numbers
    }


def _onward(
    circuit: messages.Circuit, level: Level, layer: weights.Weights
) -> messages.Circuit | None:
    """The circuit as it lies in the layer that took it in, where it may travel further.

    Its channels are those whose products are most like the pieces; where none is, it has become
    part of others, and goes on with them if they recur.
    """
    if level not in states.RECURRING:
        return None
    if levels.LEVELS.index(circuit.top) >= levels.LEVELS.index(level):
        return None
    channels: dict[str, tuple[int, ...]] = {}
    for path, piece in circuit.pieces.items():
        like = _likeness(layer[path], piece)
        best = like.argsort(descending=True, stable=True)[: piece.rank].tolist()
        if held := tuple(sorted(at for at in best if float(like[at]) >= _HELD)):
            channels[path] = held
    if not channels:
        return None
    return dataclasses.replace(
        circuit, level=level, channels=channels, pieces=circuits.cut(layer, channels)
    )


def _likeness(held: weights.Factors, piece: weights.Factors) -> torch.Tensor:
    """(rank,): of each channel of a module the largest cosine with a channel of the piece."""
    inner = (held.a.T @ piece.a) * (held.b @ piece.b.T)
    sizes = [one.a.norm(dim=0) * one.b.norm(dim=1) for one in (held, piece)]
    outer = sizes[0][:, None] * sizes[1][None, :]
    found: torch.Tensor = (inner / outer.clamp_min(1e-30)).amax(1)
    return found
