"""Decides what to ask a teacher: how many calls, with which questions and for how many facts."""

from __future__ import annotations

from services.distiller import distillation, wording
from services.distiller.providers import base
from shared import settings as config


def calls(
    request: distillation.DistilRequest, settings: config.Distiller, queries_a_call: int
) -> list[base.QARequest]:
    """The calls to a teacher, in order; equal requests give equal calls.

    Args:
        request: what to learn.
        settings: how many facts and wordings are wanted.
        queries_a_call: most questions that the teacher answers at once.
    """
    # Two spellings of one question are both asked: each must come back word for word.
    queries = tuple(dict.fromkeys(query.strip() for query in request.queries if wording.key(query)))
    starts = range(0, max(len(queries), 1), queries_a_call)
    chunks = [queries[at : at + queries_a_call] for at in starts]
    share = -(-settings.max_facts // len(chunks))
    return [
        base.QARequest(
            topic=request.topic.strip(),
            queries=chunk,
            document=request.document,
            count=max(share, len(chunk)),
            wordings=settings.wordings,
            task_id=request.task_id,
            teacher=request.teacher,
        )
        for chunk in chunks
    ]
