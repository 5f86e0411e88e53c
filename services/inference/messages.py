"""Protobuf messages from and to what a node's parts are asked and answer; nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from services.inference import answering, completing, generations, likelihoods, prompts, sampling
from shared.models import chat
from shared.pb import inference_pb2
from shared.security import callers


def question(
    request: inference_pb2.GenerateRequest, caller: callers.Caller, deadline_s: float | None
) -> answering.Question:
    """What a request asks.

    Args:
        request: as it came.
        caller: who asks.
        deadline_s: how long it waits.
    """
    return answering.Question(
        query=request.query,
        messages=tuple(chat.Message(one.role, one.content) for one in request.messages),
        model=request.model,
        max_new_tokens=request.max_new_tokens,
        max_cards=request.max_cards,
        no_learning=request.no_learning,
        tenants=caller.tenants,
        agent=request.agent,
        deadline_s=deadline_s,
        sampling=_sampling(request, request.json_schema),
    )


def completion(
    request: inference_pb2.CompleteRequest, caller: callers.Caller, deadline_s: float | None
) -> completing.Completion:
    """What an editor asks."""
    return completing.Completion(
        cursor=prompts.Cursor(request.prefix, request.suffix),
        path=request.path,
        tenants=caller.tenants,
        model=request.model,
        max_new_tokens=request.max_new_tokens,
        deadline_s=deadline_s,
        sampling=_sampling(request),
    )


def completed(found: generations.Generation) -> inference_pb2.CompleteResponse:
    """A whole completion."""
    return inference_pb2.CompleteResponse(
        text=found.answer,
        card=found.card or "",
        prompt_tokens=found.prompt_tokens,
        new_tokens=found.new_tokens,
        finish_reason=found.finish,
        logprobs=logprobs(found.logprobs),
    )


def answered(answer: answering.Answer) -> inference_pb2.GenerateResponse:
    """A whole answer."""
    return inference_pb2.GenerateResponse(
        answer=answer.generation.answer,
        card=answer.shares[0].card if answer.shares else "",
        cards=[inference_pb2.CardShare(card=one.card, weight=one.weight) for one in answer.shares],
        confidence=answer.routing.confidence,
        dissonance=answer.routing.dissonance,
        event_id=answer.routing.event_id,
        prompt_tokens=answer.generation.prompt_tokens,
        new_tokens=answer.generation.new_tokens,
        memory=answer.memory,
        rewritten_query=answer.rewritten_query,
        finish_reason=answer.generation.finish,
        logprobs=logprobs(answer.generation.logprobs),
    )


def logprobs(found: Iterable[likelihoods.TokenLogprob]) -> list[inference_pb2.TokenLogprob]:
    """How likely tokens were."""
    return [
        inference_pb2.TokenLogprob(
            token=one.text,
            bytes=one.utf8,
            logprob=one.logprob,
            top=[
                inference_pb2.TopLogprob(token=top.text, bytes=top.utf8, logprob=top.logprob)
                for top in one.top
            ],
        )
        for one in found
    ]


def _sampling(
    request: inference_pb2.GenerateRequest | inference_pb2.CompleteRequest, json_schema: str = ""
) -> sampling.Sampling:
    return sampling.Sampling(
        temperature=request.temperature,
        top_p=request.top_p or 1.0,
        top_k=request.top_k,
        seed=request.seed if request.HasField("seed") else None,
        stop=tuple(request.stop),
        json_schema=json_schema,
        top_logprobs=request.top_logprobs if request.HasField("top_logprobs") else None,
    )
