"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import fastapi
from starlette import responses

from services.gateway import domain
from services.gateway.openai_api import asking, events, forms, keys, models, refusals, requests
from shared import errors

_T = TypeVar("_T")
_ALWAYS = (models.AUTO, models.BASE, models.SPECIALIST)


class Answering:
    """The endpoints that answer."""

    def __init__(self, ask: asking.Asking, known: models.Models) -> None:
        """Takes who answers, and what may be asked."""
        self._ask, self._models = ask, known

    def router(self) -> fastapi.APIRouter:
        """Both."""
        api = fastapi.APIRouter()

        @api.post("/v1/chat/completions")
        async def chat(body: requests.ChatRequest, asker: keys.Asked) -> responses.Response:
            """The next turn of a conversation."""
            form = forms.Chat(body.model, bool(body.logprobs), body.tells_usage)
            return await self._answered(asker, body, form)

        @api.post("/v1/completions")
        async def complete(
            body: requests.CompletionRequest, asker: keys.Asked
        ) -> responses.Response:
            """What comes at a place in a text."""
            form = forms.Completion(body.model, body.logprobs is not None, body.tells_usage)
            return await self._answered(asker, body, form)

        return api

    async def _answered(
        self,
        asker: keys.Asker,
        body: requests.ChatRequest | requests.CompletionRequest,
        form: forms.Form,
    ) -> responses.Response:
        async with contextlib.AsyncExitStack() as stack:
            admission = stack.enter_context(self._ask.admitted(asker))
            model = await self._models.resolved(asker, body.model)

            async def whole(asked: domain.Asked) -> asking.Told:
                return await self._ask.whole(asker, admission, asked)

            async def begun(
                asked: domain.Asked,
            ) -> tuple[asking.Part, AsyncGenerator[asking.Part, None]]:
                parts = self._ask.parts(asker, admission, asked)
                await stack.enter_async_context(contextlib.aclosing(parts))
                # What fails before the first word has a status of its own.
                return await anext(parts), parts

            if not body.stream:
                told = await _by_newest(body, model, whole)
                headers = admission.headers | told.headers()
                return responses.JSONResponse(form.whole(told), headers=headers)
            first, parts = await _by_newest(body, model, begun)
            return events.EventStream(
                _chunks(form, first, parts), admission.headers, stack.pop_all()
            )


async def _chunks(
    form: forms.Form, first: asking.Part, others: AsyncGenerator[asking.Part, None]
) -> AsyncGenerator[dict[str, Any], None]:
    for chunk in form.chunks(first):
        yield chunk
    async for part in others:
        for chunk in form.chunks(part):
            yield chunk


async def _by_newest(
    body: requests.ChatRequest | requests.CompletionRequest,
    model: str,
    ask: Callable[[domain.Asked], Awaitable[_T]],
) -> _T:
    """Has the newest version of a card answer, or the one before while that is on its way.

    Raises:
        refusals.ModelNotServedError: no node serves the card.
        errors.SkillmeshError: as the nodes raise it.
    """
    # A name without a digest is the newest version that the node which is asked has.
    ways = [model] if "@" in body.model or "@" not in model else [model, model.partition("@")[0]]
    for way in ways:
        try:
            return await ask(body.asked(way))
        except errors.NotFoundError as error:
            if model in _ALWAYS:
                raise
            missing = error
    raise refusals.ModelNotServedError(body.model) from missing
