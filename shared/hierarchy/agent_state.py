"""All of an agent's own layers <-> the bytes in which its node keeps them; exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared import errors
from shared.hierarchy import agent, messages, packing, weights, wire
from shared.hierarchy.levels import Level

_PENDING, _UNSETTLED = "pending", "unsettled"


def to_bytes(own: agent.AgentLayers) -> bytes:
    """The Arrow file of an agent's layers, detectors, cache, and what is on its way."""
    tensors: dict[str, packing.Named] = {"cache": dict(own.cache.state())}
    tensors["queue"] = dict(own.queue.state())
    for level in own.layers:
        tensors[f"layer/{level}"] = dict(own.layers[level].state())
        tensors[f"detector/{level}"] = dict(own.detectors[level].state())
    for level, delta in (own.pending.shared | own.pending.private).items():
        tensors[f"{_PENDING}/{level}"] = wire.named(delta)
    for one in own.unsettled:
        for level, delta in one.private.items():
            tensors[f"{_UNSETTLED}/{one.sequence}/{level}"] = wire.named(delta)
    offered = list(own.offered.values())
    values = {
        "agent": own.agent,
        "sequence": own.sequence,
        "version": own.pending.version,
        "examples": own.pending.examples,
        _UNSETTLED: [one.sequence for one in own.unsettled],
        "circuits": wire.put_circuits([one.circuit for one in offered], tensors),
        "offered": [[one.sequence, one.patience] for one in offered],
    }
    return packing.pack(tensors, values)


def restore(own: agent.AgentLayers, data: bytes) -> None:
    """Takes up what `to_bytes` gave.

    Args:
        own: of the same agent, frame and settings; what it holds is replaced.
        data: the file.

    Raises:
        errors.InvalidInputError: no such file.
        errors.IntegrityError: it is another agent's, or of other layers.
    """
    tensors, values = packing.unpack(data, "an agent's layers")
    if values.get("agent") != own.agent:
        raise errors.IntegrityError(
            f"the layers of agent {own.agent!r}: this file is of {values.get('agent')!r}"
        )
    for level in own.layers:
        own.layers[level].restore(tensors[f"layer/{level}"])
        own.detectors[level].restore(tensors[f"detector/{level}"])
    own.cache.restore(tensors["cache"])
    own.queue.restore(tensors["queue"])
    own.sequence = values["sequence"]
    own.pending = agent.Learned(
        values["version"],
        _deltas(own, tensors, _PENDING, shared=True),
        _deltas(own, tensors, _PENDING, shared=False),
        values["examples"],
    )
    own.unsettled = [
        agent.Unsettled(sequence, _deltas(own, tensors, f"{_UNSETTLED}/{sequence}", shared=False))
        for sequence in values[_UNSETTLED]
    ]
    circuits = wire.take_circuits(values["circuits"], tensors, own.frame, "an agent's layers")
    own.offered = _offered(circuits, values)


def _deltas(
    own: agent.AgentLayers, tensors: packing.Tensors, section: str, *, shared: bool
) -> dict[Level, weights.Delta]:
    return {
        level: wire.factors(
            tensors[f"{section}/{level}"],
            own.frame.shapes,
            f"an agent's layers: {section}/{level}",
            own.frame.specs[level].rank,
        )
        for level in Level
        if level.is_shared is shared and f"{section}/{level}" in tensors
    }


def _offered(
    circuits: tuple[messages.Circuit, ...], values: Mapping[str, Any]
) -> dict[str, agent.Offered]:
    pairs = zip(circuits, values["offered"], strict=True)
    return {circuit.id: agent.Offered(circuit, *numbers) for circuit, numbers in pairs}
