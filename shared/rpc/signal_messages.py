"""Signals of an answer to and from protobuf, for the services that pass them on."""

from __future__ import annotations

from typing import Any

from shared import answer_signals
from shared.pb import types_pb2


def message(signals: answer_signals.AnswerSignals | None) -> types_pb2.AnswerSignals | None:
    """The protobuf of signals."""
    return None if signals is None else types_pb2.AnswerSignals(**signals.to_json())


def told(request: Any) -> answer_signals.AnswerSignals | None:
    """The signals in the field of that name; None where it is unset."""
    if not request.HasField("signals"):
        return None
    found: types_pb2.AnswerSignals = request.signals
    has_entropy = found.HasField("semantic_entropy")
    return answer_signals.AnswerSignals(
        mean_logprob=found.mean_logprob,
        mean_entropy=found.mean_entropy,
        tokens=found.tokens,
        admits_ignorance=found.admits_ignorance,
        semantic_entropy=found.semantic_entropy if has_entropy else None,
    )
