"""Costs to and from protobuf, for the services that pass them on."""

from __future__ import annotations

import dataclasses

from shared import costs
from shared.pb import types_pb2


def message(spent: costs.Spent) -> types_pb2.Spending:
    """The protobuf of costs."""
    return types_pb2.Spending(**dataclasses.asdict(spent))


def told(found: types_pb2.Spending) -> costs.Spent:
    """The costs in a message; of one that is unset, none."""
    return costs.Spent(
        calls=found.calls,
        tokens_in=found.tokens_in,
        tokens_out=found.tokens_out,
        dollars=found.dollars,
        unpriced_calls=found.unpriced_calls,
        estimated_calls=found.estimated_calls,
    )
