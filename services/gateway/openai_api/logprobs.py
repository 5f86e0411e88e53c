"""Log-probabilities as the two endpoints tell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.gateway import domain

_LEAST = -9999.0
"""What OpenAI tells of a token that was all but impossible; JSON has no infinity."""


def of_chat(tokens: Sequence[domain.TokenLogprob]) -> dict[str, Any]:
    """The field `logprobs` of a chat's choice."""
    return {
        "content": [
            {**_one(one), "top_logprobs": [_one(top) for top in one.top]} for one in tokens
        ],
        "refusal": None,
    }


def of_completion(tokens: Sequence[domain.TokenLogprob], offset: int) -> dict[str, Any]:
    """The field `logprobs` of a completion's choice.

    Args:
        tokens: in their order.
        offset: characters of the answer before them.
    """
    offsets = []
    for one in tokens:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in tokens],
        "token_logprobs": [_told(one.logprob) for one in tokens],
        "top_logprobs": [{top.token: _told(top.logprob) for top in one.top} for one in tokens],
        "text_offset": offsets,
    }


def _one(token: domain.Likely) -> dict[str, Any]:
    return {"token": token.token, "logprob": _told(token.logprob), "bytes": list(token.utf8)}


def _told(logprob: float) -> float:
    return max(logprob, _LEAST)
