"""Decides what to ask a teacher: how many calls, with which questions and for how many facts."""

from __future__ import annotations

from services.distiller import distillation, wording
from services.distiller.providers import base
from shared import settings as config

_QUERIES_A_CALL = 8
"""More questions in one call, and models begin to skip some."""


def calls(request: distillation.DistilRequest, settings: config.Distiller) -> list[base.QARequest]:
    """The calls to a teacher, in order; equal requests give equal calls.

    Args:
        request: what to learn.
        settings: how many facts and wordings are wanted.
    """
    # Two spellings of one question are both asked: each must come back word for word.
    queries = tuple(dict.fromkeys(query.strip() for query in request.queries if wording.key(query)))
    starts = range(0, max(len(queries), 1), _QUERIES_A_CALL)
    chunks = [queries[at : at + _QUERIES_A_CALL] for at in starts]
    share = -(-settings.max_facts // len(chunks))
    return [
        base.QARequest(
            topic=request.topic.strip(),
            queries=chunk,
            document=request.document,
            count=max(share, len(chunk)),
            wordings=settings.wordings,
        )
        for chunk in chunks
    ]
