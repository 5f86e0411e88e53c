"""A server that speaks OpenAI's protocol as a node: vLLM with the project's plugin, for one.

What an inference node does itself is done here for it: the caller's token is looked at, the router
is asked first, and a question that no card fits starts learning. Of a node's abilities it lacks
agents, several cards in one answer, the routes of code bases, and text behind the cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import openai
import structlog

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.nodes import choice, openai_wire
from shared import errors, rewriting
from shared import settings as config
from shared.rpc import access
from shared.security import callers
from shared.security import protection as protections
from shared.telemetry import tracing

KEY_VARIABLE = "VLLM_API_KEY"
_NO_KEY = "none"
"""Without one the SDK would send the user's OPENAI_API_KEY to this server."""
_ROUTE_DEADLINE_S = 2.0
_CONNECT_S = 3.0
_ROWS = 64
"""No such server tells how many answers it generates together; a guess, to compare loads by."""
_log = structlog.get_logger(__name__)

Route = Callable[[str, bool, str, float], Awaitable[domain.Route]]
"""Asks the router: query, no_learning, tenant, deadline in seconds."""
Find = Callable[[str], Awaitable[domain.Card]]
"""Asks the store for a card, in the name of the caller."""


class OpenAIBackend:
    """A `backend.Backend` over HTTP."""

    def __init__(
        self,
        address: str,
        route: Route,
        rewriting_from: float | None = None,
        protection: protections.Protection = protections.OPEN,
        api_key: str = "",
        find: Find | None = None,
    ) -> None:
        """Connects on first use.

        Args:
            address: `http(s)://host:port/v1`.
            route: asks the router.
            rewriting_from: similarity from which on a question is asked as the card's own;
                None: never.
            protection: who may call, and the gateway's own token.
            api_key: of the server; empty for none.
            find: tells whether a routed card is one that the caller may see; None: all are.
        """
        self._find = find
        self.address = address.rstrip("/")
        self._route, self._rewriting_from, self._protection = route, rewriting_from, protection
        self._base = ""
        """Name of the base model at the server; empty before it was asked."""
        self._in_flight = 0
        self._has_metrics = True
        self._client = openai.AsyncOpenAI(
            api_key=api_key or _NO_KEY, base_url=self.address, max_retries=0
        )

    async def look(self, deadline_s: float) -> domain.Node:
        """Its models; see `backend.Backend`."""
        until_s = time.monotonic() + deadline_s
        with openai_wire.typed_errors(self.address):
            listed = (await self._client.models.list(timeout=deadline_s)).data or []
            names = [one.id for one in listed]
        cards = tuple(dict.fromkeys(filter(None, map(openai_wire.card_of, names))))
        bases = [one.id for one in listed if not getattr(one, "parent", None)]
        self._base = next((one for one in bases if not openai_wire.card_of(one)), "")
        if not self._base:
            raise errors.UnavailableError(f"{self.address} serves no base model; it lists {names}")
        running, waiting = await self._load(max(0.1, until_s - time.monotonic()))
        return domain.Node(
            id=self.address,
            base_model=self._base,
            served=cards,
            resident=cards,
            revision=0,
            store_connected=True,
            running=running,
            waiting=waiting,
            most_rows=_ROWS,
            fetches_cards=True,
        )

    async def whole(self, asked: domain.Asked, deadline_s: float) -> domain.Whole:
        """Answers in one piece."""
        logprobs: list[domain.TokenLogprob] = []
        async with contextlib.aclosing(self.stream(asked, deadline_s)) as pieces:
            async for piece in pieces:
                logprobs += piece.logprobs
                if piece.final is not None:
                    return domain.Whole(piece.final, tuple(logprobs))
        raise errors.InternalError("an answer ended without its last piece")

    async def stream(
        self, asked: domain.Asked, deadline_s: float
    ) -> AsyncGenerator[domain.Piece, None]:
        """Answers piece by piece."""
        until_s = asyncio.get_running_loop().time() + deadline_s
        caller = self._caller(asked)
        if not self._base:
            await self.look(min(deadline_s, _CONNECT_S))
        self._in_flight += 1
        events = None
        try:
            route = await self._routed(asked, caller, deadline_s)
            events, last = await self._begun(asked, route, until_s)
            read = (
                openai_wire.chat_part
                if isinstance(asked, domain.Conversation)
                else openai_wire.completion_part
            )
            parts: list[openai_wire.Part] = []
            while True:
                with openai_wire.typed_errors(self.address):
                    async with asyncio.timeout_at(until_s):
                        chunk = await anext(events, None)
                    if chunk is None:
                        break
                    part = read(chunk)
                parts.append(part)
                if part.text or part.logprobs:
                    yield domain.Piece(part.text, part.logprobs)
            if not any(part.finish for part in parts):
                raise errors.UnavailableError(
                    f"{self.address} broke off its answer after {len(parts)} pieces; ask again"
                )
            yield domain.Piece("", (), self._answer(route, parts, last))
        finally:
            self._in_flight -= 1
            if events is not None:
                await events.close()  # Whoever goes away early frees the server's work.

    async def pin(self, card: str) -> str:
        """It can't be told to keep a card."""
        raise errors.PreconditionError(
            f"{self.address} fetches cards when they are asked for, and can't be told to keep one; "
            "choose --max-loras of vLLM large enough"
        )

    async def unpin(self, card: str) -> str:
        """See `pin`."""
        return await self.pin(card)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def _caller(self, asked: domain.Asked) -> callers.Caller:
        """Who asks; nobody but this gateway looks at that.

        Raises:
            errors.UnauthenticatedError: nobody who is known.
            errors.ForbiddenError: one who may not.
        """
        shown = access.on_whose_behalf()
        own = callers.header(self._protection.token) if self._protection.token else ""
        caller = self._protection.admitted.identify(own if shown is None else shown)
        is_chat = isinstance(asked, domain.Conversation)
        caller.check_may("Inference/Generate" if is_chat else "Inference/Complete")
        return caller

    async def _routed(
        self, asked: domain.Asked, caller: callers.Caller, deadline_s: float
    ) -> domain.Route:
        if isinstance(asked, domain.Conversation) and asked.agent:
            raise errors.NotFoundError(f"{self.address} has no agents; leave out {asked.agent!r}")
        if choice.names_card(asked.model):
            return domain.Route(card=asked.model)
        if not isinstance(asked, domain.Conversation) or asked.model not in ("", "auto"):
            return domain.Route()
        query = asked.messages[-1].content
        try:
            route = await self._route(
                query, asked.no_learning, caller.tenant, min(_ROUTE_DEADLINE_S, deadline_s)
            )
        except errors.SkillmeshError as error:
            _log.warning("router not reached; the bare base answers", reason=str(error))
            return domain.Route()
        # A router without tokens shows cards to everybody.
        if route.card and caller.tenants is not None and not await self._sees(route.card):
            return dataclasses.replace(route, card="", reading="")
        return route

    async def _sees(self, card: str) -> bool:
        if self._find is None:
            return True
        try:
            await self._find(card)
        except errors.SkillmeshError as error:
            _log.info("card is not the caller's; the bare base answers", reason=str(error))
            return False
        return True

    async def _begun(
        self, asked: domain.Asked, route: domain.Route, until_s: float
    ) -> tuple[Any, str]:
        """The stream of events, and what is asked in place of the question, if anything."""
        last = self._rewritten(asked, route)
        try:
            return await self._sent(asked, route.card or self._base, last, until_s), last
        except errors.NotFoundError as error:
            if choice.names_card(asked.model) or not route.card:
                raise
            _log.warning("card not here; the bare base answers", card=route.card, reason=str(error))
        return await self._sent(asked, self._base, "", until_s), ""

    async def _sent(self, asked: domain.Asked, model: str, last: str, until_s: float) -> Any:
        left_s = max(0.001, until_s - asyncio.get_running_loop().time())
        timeout = httpx2.Timeout(left_s, connect=min(left_s, _CONNECT_S))
        completions: Any
        if isinstance(asked, domain.Conversation):
            completions = self._client.chat.completions
            body = openai_wire.chat_request(asked, model, last or asked.messages[-1].content)
        else:
            completions = self._client.completions
            body = openai_wire.completion_request(asked, model)
        with openai_wire.typed_errors(self.address):
            async with asyncio.timeout_at(until_s):
                return await completions.create(
                    **body, timeout=timeout, extra_headers=tracing.headers()
                )

    def _rewritten(self, asked: domain.Asked, route: domain.Route) -> str:
        """What is asked in place of a question; a turn within a conversation stays as it is."""
        if not isinstance(asked, domain.Conversation):
            return ""
        if sum(one.role != "system" for one in asked.messages) != 1:
            return ""
        return rewriting.rewritten(
            asked.messages[-1].content, route.reading, route.similarity, self._rewriting_from
        )

    def _answer(
        self, route: domain.Route, parts: list[openai_wire.Part], last: str
    ) -> domain.Answer:
        card = next(filter(None, (openai_wire.card_of(one.model) for one in parts)), "")
        return domain.Answer(
            text="".join(one.text for one in parts),
            card=card,
            confidence=route.confidence,
            dissonance=route.dissonance,
            event_id=route.event_id,
            rewritten_query=last,
            shares=((card, 1.0),) if card else (),
            prompt_tokens=max((one.prompt_tokens for one in parts), default=0),
            new_tokens=max((one.new_tokens for one in parts), default=0),
            finish=next((one.finish for one in reversed(parts) if one.finish), "stop"),
            node=self.address,
        )

    async def _load(self, deadline_s: float) -> tuple[int, int]:
        """Requests that run and wait; where it does not tell, those of this gateway."""
        own = (self._in_flight, 0)
        if not self._has_metrics:
            return own
        url = self.address.removesuffix("/v1") + "/metrics"
        try:
            with openai_wire.typed_errors(self.address):
                reply = await self._client.get(
                    url, cast_to=httpx2.Response, options={"timeout": deadline_s}
                )
        except errors.SkillmeshError as error:
            # A server without metrics is asked once; one that was late, again.
            self._has_metrics = error.retryable
            return own
        return openai_wire.load_of(reply.text) or own


def configured(
    address: str,
    settings: config.Settings,
    services: peers.Peers,
    protection: protections.Protection,
) -> OpenAIBackend:
    """A server that stands in `gateway.nodes`."""
    return OpenAIBackend(
        address,
        services.router.route,
        settings.inference.query_rewriting.get(settings.model.base),
        protection,
        os.environ.get(KEY_VARIABLE, ""),
        services.store.card,
    )
