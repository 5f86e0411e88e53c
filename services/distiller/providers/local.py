"""`LocalTeacherProvider`: any OpenAI-compatible server: vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai
from openai.types import shared_params

from services.distiller.providers import chat, language_model, masking, prompts, reply

DEFAULT_MODEL = "default"
"""llama.cpp ignores the name; vLLM and Ollama want the name of a model that they serve."""
_KEY = "none (a local server needs no key)"
_NO_SCHEMAS_STATUSES = frozenset({400, 422, 501})
"""With these a server turns down a field that it does not know."""


class LocalTeacherProvider(language_model.LanguageModelProvider):
    """Asks a server of the user's own, which costs nothing."""

    def __init__(self, endpoint: str, model: str, terms: language_model.Terms) -> None:
        """Prepares a client; connects on first use.

        Args:
            endpoint: base URL, such as `http://127.0.0.1:11434/v1`.
            model: name of the model at the server.
            terms: how it is asked.
        """
        named = language_model.Model(
            "local", model or DEFAULT_MODEL, free=True, secrets=masking.credentials(endpoint)
        )
        super().__init__(named, terms)
        # The SDK would send the user's OPENAI_API_KEY to this server if it were given none.
        self._client = chat.client("local", endpoint, terms.timeout_s)
        self._takes_schemas = True

    async def aclose(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _complete(
        self, conversation: Sequence[prompts.Turn], form: reply.Form[Any] = reply.FACTS
    ) -> language_model.Completion:
        with chat.typed_errors(self.name, _KEY, self._terms.timeout_s):
            if self._takes_schemas:
                try:
                    return await self._send(conversation, form, chat.response_format(form))
                except openai.APIStatusError as error:
                    if error.status_code not in _NO_SCHEMAS_STATUSES:
                        raise
            completion = await self._send(conversation, form, openai.omit)
        # Only now is it clear that the schema was what the server turned down.
        self._takes_schemas = False
        return completion

    async def _send(
        self,
        conversation: Sequence[prompts.Turn],
        form: reply.Form[Any],
        response_format: shared_params.ResponseFormatJSONSchema | openai.Omit,
    ) -> language_model.Completion:
        # The shape stands in the prompt as well: some servers take a schema and ignore it. No limit
        # of the output: it costs nothing, and some refuse one that their context can't hold.
        completion = await self._client.chat.completions.create(
            model=self._model.name,
            messages=chat.messages(form.rules_with_shape, conversation),
            response_format=response_format,
        )
        return chat.read(self.name, completion)
