"""The node's RPCs: calls its parts with what `messages` translates, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from services.inference import (
    answering,
    choosing,
    completing,
    messages,
    semantic_entropy,
    subscriber,
)
from services.inference import engine as engines
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
        chosen: choosing.Choosing,
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
        self._chosen = chosen

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        """Answers as a whole."""
        return messages.answered(await self._answers.answer(self._question(request, context)))

    async def GenerateStream(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        """Answers piece by piece."""
        pieces = self._answers.stream(self._question(request, context))
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield inference_pb2.GenerateChunk(
                    text=piece.text,
                    final=None if piece.final is None else messages.answered(piece.final),
                    logprobs=messages.logprobs(piece.logprobs),
                )

    async def Complete(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> inference_pb2.CompleteResponse:
        """Completes code as a whole."""
        asked = messages.completion(request, self._caller(context), context.time_remaining())
        return messages.completed(await self._completions.complete(asked))

    async def CompleteStream(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.CompleteChunk, None]:
        """Completes code piece by piece."""
        asked = messages.completion(request, self._caller(context), context.time_remaining())
        pieces = self._completions.stream(asked)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield inference_pb2.CompleteChunk(
                    text=piece.text,
                    final=None if piece.final is None else messages.completed(piece.final),
                    logprobs=messages.logprobs(piece.logprobs),
                )

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        """Tells which of the caller's cards are served and in memory, and how busy it is."""
        load = self._engine.load
        tenants = self._caller(context).tenants

        def theirs(cards: Iterable[str]) -> list[str]:
            return [card for card in cards if self._chosen.is_for(card, tenants)]

        return inference_pb2.NodeStatus(
            node_id=self._node_id,
            base_model=self._engine.base_id,
            base_fingerprint=self._engine.fingerprint,
            resident=theirs(self._engine.resident()),
            served=theirs(self._engine.served()),
            held_bytes=self._engine.held_bytes,
            semantic_sampled=self._semantic.sampled,
            semantic_dropped=self._semantic.dropped,
            revision=self._cards.revision,
            store_connected=self._cards.connected,
            pinned=theirs(self._engine.pinned()),
            running=load.running,
            waiting=load.waiting,
            most_rows=load.most_rows,
            queue=load.queue,
            max_new_tokens=load.max_new_tokens,
            context_tokens=load.context_tokens or 0,
            swaps=[
                inference_pb2.SwapRecord(
                    card=swap.card,
                    fetch_ms=swap.fetch_ms,
                    swap_ms=swap.swap_ms,
                    at_ms=swap.at_ms,
                )
                for swap in self._cards.swaps
                if self._chosen.is_for(swap.card, tenants)
            ],
        )

    async def PinCard(
        self, request: inference_pb2.PinCardRequest, context: Any
    ) -> inference_pb2.PinCardResponse:
        """Keeps a card in memory."""
        card = self._chosen.named(request.card, self._caller(context).tenants)
        await self._engine.keep_lora(card, context.time_remaining())
        return inference_pb2.PinCardResponse(card=card)

    async def UnpinCard(
        self, request: inference_pb2.UnpinCardRequest, context: Any
    ) -> inference_pb2.UnpinCardResponse:
        """Lets a card leave memory."""
        card = self._chosen.named(request.card, self._caller(context).tenants)
        await self._engine.let_go_lora(card)
        return inference_pb2.UnpinCardResponse(card=card)

    def _question(self, request: inference_pb2.GenerateRequest, context: Any) -> answering.Question:
        return messages.question(request, self._caller(context), context.time_remaining())

    def _caller(self, context: Any) -> callers.Caller:
        return access.caller_of(self._admitted, context.invocation_metadata())
