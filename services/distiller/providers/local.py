"""`LocalTeacherProvider`: any OpenAI-compatible server: vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from collections.abc import Sequence

import openai

from services.distiller.providers import chat, language_model, prompts

DEFAULT_MODEL = "default"
"""llama.cpp ignores the name; vLLM and Ollama want the name of a model that they serve."""
_RETRIES = 2
_KEY = "none (a local server needs no key)"
_NO_SCHEMAS_STATUSES = frozenset({400, 422, 501})
"""With these a server turns down a field that it does not know."""


class LocalTeacherProvider(language_model.LanguageModelProvider):
    """Asks a server of the user's own."""

    def __init__(self, endpoint: str, model: str, timeout_s: float) -> None:
        """Prepares a client; connects on first use.

        Args:
            endpoint: base URL, such as `http://127.0.0.1:11434/v1`.
            model: name of the model at the server.
            timeout_s: longest wait for one answer, the SDK's retries included.
        """
        self._model = model or DEFAULT_MODEL
        super().__init__(f"local:{self._model}", timeout_s)
        # The SDK would send the user's OPENAI_API_KEY to this server if it were given none.
        self._client = openai.AsyncOpenAI(
            api_key="local", base_url=endpoint, timeout=timeout_s, max_retries=_RETRIES
        )
        self._takes_schemas = True

    async def aclose(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _complete(self, conversation: Sequence[prompts.Turn]) -> language_model.Completion:
        with chat.typed_errors(self.name, _KEY, self._timeout_s):
            if self._takes_schemas:
                try:
                    return await self._complete_by_schema(conversation)
                except openai.APIStatusError as error:
                    if error.status_code not in _NO_SCHEMAS_STATUSES:
                        raise
            completion = await self._client.chat.completions.create(
                model=self._model,
                messages=chat.messages(prompts.with_shape(prompts.SYSTEM), conversation),
            )
        # Only now is it clear that the schema was what the server turned down.
        self._takes_schemas = False
        return chat.read(self.name, completion)

    async def _complete_by_schema(
        self, conversation: Sequence[prompts.Turn]
    ) -> language_model.Completion:
        # The shape stands in the prompt as well: some servers take a schema and ignore it.
        completion = await self._client.chat.completions.create(
            model=self._model,
            messages=chat.messages(prompts.with_shape(prompts.SYSTEM), conversation),
            response_format=chat.response_format(),
        )
        return chat.read(self.name, completion)
