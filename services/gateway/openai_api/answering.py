"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import fastapi
from starlette import responses

from services.gateway import domain
from services.gateway.openai_api import asking, events, forms, keys, models, refusals, requests
from shared import errors

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
            asked = body.asked(await self._models.resolved(asker, body.model))
            with _named(body.model, asked):
                if not body.stream:
                    told = await self._ask.whole(asker, admission, asked)
                    headers = admission.headers | told.headers()
                    return responses.JSONResponse(form.whole(told), headers=headers)
                parts = self._ask.parts(asker, admission, asked)
                await stack.enter_async_context(contextlib.aclosing(parts))
                # What fails before the first word has a status of its own.
                first = await anext(parts)
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


@contextlib.contextmanager
def _named(name: str, asked: domain.Asked) -> Any:
    """Tells of a card that no node serves as of a model that is not there."""
    try:
        yield
    except errors.NotFoundError as error:
        if asked.model in _ALWAYS:
            raise
        raise refusals.ModelNotFoundError(name) from error
