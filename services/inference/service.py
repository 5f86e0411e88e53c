"""Translates protobuf to and from the node's dataclasses, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from services.inference import (
    answering,
    completing,
    generations,
    sampling,
    semantic_entropy,
    subscriber,
)
from services.inference import engine as engines
from shared import errors
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import access
from shared.security import callers


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """`skillmesh.v1.Inference`."""

    def __init__(
        self,
        node_id: str,
        engine: engines.ArrowEngine,
        answers: answering.Answering,
        completions: completing.Completing,
        cards: subscriber.CardSubscriber,
        semantic: semantic_entropy.SemanticEntropy,
        admitted: callers.Callers,
    ) -> None:
        """Takes the parts that do the work, and those who may call."""
        self._admitted = admitted
        self._node_id = node_id
        self._engine = engine
        self._answers = answers
        self._completions = completions
        self._cards = cards
        self._semantic = semantic

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        """Answers as a whole."""
        return _response(await self._answers.answer(self._question(request, context)))

    async def GenerateStream(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        """Answers piece by piece."""
        pieces = self._answers.stream(self._question(request, context))
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                final = None if piece.final is None else _response(piece.final)
                yield inference_pb2.GenerateChunk(text=piece.text, final=final)

    async def Complete(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> inference_pb2.CompleteResponse:
        """Completes code as a whole."""
        return _completed(await self._completions.complete(_completion(request, context)))

    async def CompleteStream(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.CompleteChunk, None]:
        """Completes code piece by piece."""
        pieces = self._completions.stream(_completion(request, context))
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                final = None if piece.final is None else _completed(piece.final)
                yield inference_pb2.CompleteChunk(text=piece.text, final=final)

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        """Tells which cards are served, which of them are in memory, and when they came."""
        return inference_pb2.NodeStatus(
            node_id=self._node_id,
            base_model=self._engine.base_id,
            base_fingerprint=self._engine.fingerprint,
            resident=self._engine.resident(),
            served=self._engine.served(),
            held_bytes=self._engine.held_bytes,
            semantic_sampled=self._semantic.sampled,
            semantic_dropped=self._semantic.dropped,
            revision=self._cards.revision,
            store_connected=self._cards.connected,
            swaps=[
                inference_pb2.SwapRecord(
                    card=swap.card,
                    fetch_ms=swap.fetch_ms,
                    swap_ms=swap.swap_ms,
                    at_ms=swap.at_ms,
                )
                for swap in self._cards.swaps
            ],
        )

    async def PinCard(
        self, request: inference_pb2.PinCardRequest, context: Any
    ) -> inference_pb2.PinCardResponse:
        """Keeps a card in memory."""
        raise errors.PreconditionError("this node does not pin cards yet")

    async def UnpinCard(
        self, request: inference_pb2.UnpinCardRequest, context: Any
    ) -> inference_pb2.UnpinCardResponse:
        """Lets a card leave memory."""
        raise errors.PreconditionError("this node does not pin cards yet")

    def _question(self, request: inference_pb2.GenerateRequest, context: Any) -> answering.Question:
        caller = access.caller_of(self._admitted, context.invocation_metadata())
        return answering.Question(
            query=request.query,
            model=request.model,
            max_new_tokens=request.max_new_tokens,
            max_cards=request.max_cards,
            no_learning=request.no_learning,
            tenant=caller.tenant,
            agent=request.agent,
            deadline_s=context.time_remaining(),
            sampling=_sampling(request),
        )


def _completion(request: inference_pb2.CompleteRequest, context: Any) -> completing.Completion:
    return completing.Completion(
        cursor=generations.Cursor(request.prefix, request.suffix),
        path=request.path,
        model=request.model,
        max_new_tokens=request.max_new_tokens,
        deadline_s=context.time_remaining(),
        sampling=_sampling(request),
    )


def _sampling(
    request: inference_pb2.GenerateRequest | inference_pb2.CompleteRequest,
) -> sampling.Sampling:
    return sampling.Sampling(
        temperature=request.temperature,
        top_p=request.top_p or 1.0,
        top_k=request.top_k,
        seed=request.seed if request.HasField("seed") else None,
        stop=tuple(request.stop),
    )


def _completed(found: generations.Generation) -> inference_pb2.CompleteResponse:
    return inference_pb2.CompleteResponse(
        text=found.answer,
        card=found.card or "",
        prompt_tokens=found.prompt_tokens,
        new_tokens=found.new_tokens,
        finish_reason=found.finish,
    )


def _response(answer: answering.Answer) -> inference_pb2.GenerateResponse:
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
    )
