"""All of one agent's layers, detectors, cache and open changes <-> the bytes that are kept of it.

To the bit: an agent that is read again goes on as the one that was written. Knows nothing about
where the bytes lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from shared import errors
from shared.hierarchy import agent, levels, packing, weights, wire

_KIND = "agent"
_PENDING, _UNSETTLED = "pending", "unsettled"


def to_bytes(own: agent.AgentLayers) -> bytes:
    """The Arrow file of an agent; equal agents give equal bytes."""
    tensors: dict[str, packing.Named] = {"cache": dict(own.cache.state())}
    tensors["queue"] = dict(own.queue.state())
    for level in levels.PRIVATE:
        tensors[f"layer/{level}"] = own.layers[level].state()
        tensors[f"detector/{level}"] = dict(own.detectors[level].state())
    for level, delta in (*own.pending.shared.items(), *own.pending.private.items()):
        tensors[f"{_PENDING}/{level}"] = wire.named(delta)
    for at, waiting in enumerate(own.unsettled):
        for level, delta in waiting.private.items():
            tensors[f"{_UNSETTLED}/{at:05d}/{level}"] = wire.named(delta)
    values = {
        "kind": _KIND,
        "agent": own.agent,
        "sequence": own.sequence,
        "version": own.pending.version,
        "examples": own.pending.examples,
        "unsettled": [waiting.sequence for waiting in own.unsettled],
        "patience": [offered.patience for offered in own.offered.values()],
        "offered": wire.put_circuits((one.circuit for one in own.offered.values()), tensors),
    }
    return packing.pack(tensors, values)


def restore(own: agent.AgentLayers, data: bytes) -> None:
    """Makes a new agent what another one was.

    Args:
        own: of the same name, modules and ranks; nothing was done with it yet.
        data: as `to_bytes` wrote it.

    Raises:
        errors.IntegrityError: the bytes are not those of such an agent.
    """
    try:
        tensors, values = packing.unpack(data, _KIND)
        if values["agent"] != own.agent:
            raise errors.InvalidInputError(f"it is of agent {values['agent']!r}")
        own.cache.restore(tensors.pop("cache"))
        own.queue.restore(tensors.pop("queue"))
        for level in levels.PRIVATE:
            own.layers[level].restore(tensors.pop(f"layer/{level}"))
            own.detectors[level].restore(tensors.pop(f"detector/{level}"))
        offered = wire.take_circuits(values["offered"], tensors, own.frame, own.agent)
        patience = zip(offered, values["patience"], strict=True)
        own.offered = {one.id: agent.Offered(one, left) for one, left in patience}
        own.sequence = values["sequence"]
        pending = _deltas(tensors, f"{_PENDING}/", own.frame)
        own.pending = agent.Learned(
            values["version"],
            {level: delta for level, delta in pending.items() if level.is_shared},
            {level: delta for level, delta in pending.items() if not level.is_shared},
            values["examples"],
        )
        own.unsettled = [
            agent.Unsettled(sequence, _deltas(tensors, f"{_UNSETTLED}/{at:05d}/", own.frame))
            for at, sequence in enumerate(values["unsettled"])
        ]
    except (errors.InvalidInputError, KeyError, TypeError, ValueError) as error:
        raise errors.IntegrityError(
            f"what is kept of agent {own.agent!r} can't be read: {error}; ForgetAgent drops it, or "
            "go back to the ranks and base model that it was made with"
        ) from error


def _deltas(
    tensors: Mapping[str, Mapping[str, torch.Tensor]], start: str, frame: wire.Frame
) -> dict[levels.Level, dict[str, weights.Factors]]:
    found: dict[levels.Level, Any] = {}
    for level in levels.LEVELS:
        named = tensors.get(f"{start}{level}")
        if named is not None:
            rank = frame.specs[level].rank
            found[level] = dict(wire.factors(named, frame.shapes, str(level), exactly=rank))
    return found
