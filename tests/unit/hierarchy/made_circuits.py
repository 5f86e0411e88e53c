"""Circuits of any size, for the queues."""

from __future__ import annotations

from typing import Any

import torch

from shared.hierarchy import levels, messages, weights


def circuit(name: str, size: int = 10, strength: float = 0.8, **changed: Any) -> messages.Circuit:
    """One of one channel, with `size` parameters in all, on its way from agent to domain."""
    pieces = {"q": weights.Factors(torch.full((size - 1, 1), 0.5), torch.full((1, 1), 0.25))}
    plain: dict[str, Any] = {
        "id": name,
        "agent": name.partition(":")[0],
        "level": levels.Level.AGENT,
        "top": levels.Level.DOMAIN,
        "channels": {"q": (3,)},
        "pieces": pieces,
        "autocorrelation": strength,
        "hits": 2,
    }
    return messages.Circuit(**plain | changed)
