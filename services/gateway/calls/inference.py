"""Calls to an inference node, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import grpc.aio

from services.gateway import domain
from shared import errors
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import client

_ASK_DEADLINE_S = 120.0
_PIN_DEADLINE_S = 60.0
"""The card may have to be fetched."""


class InferenceCalls:
    """One inference node."""

    def __init__(self, channel: grpc.aio.Channel, address: str = "") -> None:
        """Takes a connection to it, and what answers say of where they come from."""
        self._stub: Any = inference_pb2_grpc.InferenceStub(channel)
        self._address = address

    async def ask(
        self, query: str, no_learning: bool = False, model: str = "auto", agent: str = ""
    ) -> domain.Answer:
        """Asks the inference node.

        Args:
            query: what.
            no_learning: an unknown question starts no learning.
            model: `auto`: the router decides; `base`; the reference of a card.
            agent: whose memory answers; empty for none.
        """
        request = inference_pb2.GenerateRequest(
            query=query, model=model, no_learning=no_learning, agent=agent
        )
        reply = await client.call(self._stub.Generate, request, _ASK_DEADLINE_S)
        return self._answer(reply)

    async def whole(self, asked: domain.Asked, deadline_s: float) -> domain.Whole:
        """Answers or completes as a whole.

        Raises:
            errors.SkillmeshError: what the node answered, typed.
        """
        if isinstance(asked, domain.Conversation):
            reply = await client.call(self._stub.Generate, _generate_request(asked), deadline_s)
            return domain.Whole(self._answer(reply), _logprobs(reply.logprobs))
        reply = await client.call(self._stub.Complete, _complete_request(asked), deadline_s)
        return domain.Whole(self._completed(reply), _logprobs(reply.logprobs))

    async def stream(
        self, asked: domain.Asked, deadline_s: float
    ) -> AsyncGenerator[domain.Piece, None]:
        """Answers or completes piece by piece; to close it early cancels the call.

        Raises:
            errors.UnavailableError: the node went away before the last piece.
            errors.SkillmeshError: what the node answered, typed.
        """
        if isinstance(asked, domain.Conversation):
            call = self._stub.GenerateStream(_generate_request(asked), timeout=deadline_s)
            read: Any = self._answer
        else:
            call = self._stub.CompleteStream(_complete_request(asked), timeout=deadline_s)
            read = self._completed
        ended = False
        try:
            async with client.typed_errors():
                async for chunk in call:
                    ended = chunk.HasField("final")
                    final = read(chunk.final) if ended else None
                    yield domain.Piece(chunk.text, _logprobs(chunk.logprobs), final)
        finally:
            call.cancel()  # Silent where it has ended.
        if not ended:
            raise errors.UnavailableError("the answer ended before its last piece; ask again")

    async def pin(self, card: str, deadline_s: float = _PIN_DEADLINE_S) -> str:
        """Brings a card into memory and keeps it there; returns its `name@digest`."""
        request = inference_pb2.PinCardRequest(card=card)
        return str((await client.call(self._stub.PinCard, request, deadline_s)).card)

    async def unpin(self, card: str, deadline_s: float = _PIN_DEADLINE_S) -> str:
        """Lets a card leave memory; returns its `name@digest`."""
        request = inference_pb2.UnpinCardRequest(card=card)
        return str((await client.call(self._stub.UnpinCard, request, deadline_s)).card)

    async def status(self, deadline_s: float = client.DEFAULT_DEADLINE_S) -> domain.Node:
        """The inference node."""
        request = inference_pb2.GetNodeStatusRequest()
        reply = await client.call(self._stub.GetNodeStatus, request, deadline_s)
        return domain.Node(
            id=reply.node_id,
            base_model=reply.base_model,
            base_fingerprint=reply.base_fingerprint,
            served=tuple(reply.served),
            resident=tuple(reply.resident),
            pinned=tuple(reply.pinned),
            held_bytes=reply.held_bytes,
            revision=reply.revision,
            store_connected=reply.store_connected,
            running=reply.running,
            waiting=reply.waiting,
            most_rows=reply.most_rows,
            queue=reply.queue,
            max_new_tokens=reply.max_new_tokens,
            context_tokens=reply.context_tokens,
            swaps=tuple(
                domain.Swap(card=swap.card, fetch_ms=swap.fetch_ms, swap_ms=swap.swap_ms)
                for swap in reply.swaps
            ),
        )

    def _answer(self, reply: inference_pb2.GenerateResponse) -> domain.Answer:
        return domain.Answer(
            text=reply.answer,
            card=reply.card,
            confidence=reply.confidence,
            dissonance=reply.dissonance,
            event_id=reply.event_id,
            rewritten_query=reply.rewritten_query,
            shares=tuple((one.card, one.weight) for one in reply.cards),
            memory=reply.memory,
            prompt_tokens=reply.prompt_tokens,
            new_tokens=reply.new_tokens,
            finish=reply.finish_reason or "stop",
            node=self._address,
        )

    def _completed(self, reply: inference_pb2.CompleteResponse) -> domain.Answer:
        return domain.Answer(
            text=reply.text,
            card=reply.card,
            confidence=0.0,
            dissonance=False,
            event_id="",
            shares=((reply.card, 1.0),) if reply.card else (),
            prompt_tokens=reply.prompt_tokens,
            new_tokens=reply.new_tokens,
            finish=reply.finish_reason or "stop",
            node=self._address,
        )


def _generate_request(asked: domain.Conversation) -> inference_pb2.GenerateRequest:
    sampling, turns = asked.sampling, asked.messages
    is_question = len(turns) == 1 and turns[0].role == "user"
    return inference_pb2.GenerateRequest(
        query=turns[0].content if is_question else "",
        messages=[
            inference_pb2.ChatMessage(role=one.role, content=one.content)
            for one in (() if is_question else turns)
        ],
        model=asked.model,
        max_new_tokens=sampling.max_new_tokens,
        no_learning=asked.no_learning,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=sampling.stop,
        max_cards=asked.max_cards,
        agent=asked.agent,
        top_logprobs=sampling.top_logprobs,
        json_schema=asked.json_schema,
    )


def _complete_request(asked: domain.Continuation) -> inference_pb2.CompleteRequest:
    sampling = asked.sampling
    return inference_pb2.CompleteRequest(
        prefix=asked.prefix,
        suffix=asked.suffix,
        path=asked.path,
        model=asked.model,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=sampling.stop,
        top_logprobs=sampling.top_logprobs,
    )


def _logprobs(tokens: Iterable[Any]) -> tuple[domain.TokenLogprob, ...]:
    return tuple(
        domain.TokenLogprob(
            token=one.token,
            utf8=one.bytes,
            logprob=one.logprob,
            top=tuple(domain.Likely(top.token, top.bytes, top.logprob) for top in one.top),
        )
        for one in tokens
    )
