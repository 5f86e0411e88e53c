"""How sure the bare base model was of an answer: told by the node, weighed by the factory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class AnswerSignals:
    """Means over the answer's tokens, and what further answers to the same question tell."""

    mean_logprob: float
    """Natural logarithm; 0 is certain."""
    mean_entropy: float
    """Nats; 0 is certain."""
    tokens: int
    admits_ignorance: bool
    """The answer says that it does not know."""
    semantic_entropy: float | None = None
    """Over the meanings of a few sampled answers, nats; 0: all mean the same. None: not sampled."""

    def to_json(self) -> dict[str, Any]:
        """By field; what is not known is left out."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> AnswerSignals:
        """The signals of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or no number.
        """
        entropy = row.get("semantic_entropy")
        return cls(
            mean_logprob=float(row["mean_logprob"]),
            mean_entropy=float(row["mean_entropy"]),
            tokens=int(row["tokens"]),
            admits_ignorance=bool(row["admits_ignorance"]),
            semantic_entropy=None if entropy is None else float(entropy),
        )
