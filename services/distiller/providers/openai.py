"""`OpenAIProvider`: OpenAI's models as teachers, held to a JSON schema."""

from __future__ import annotations

from collections.abc import Sequence

import openai

from services.distiller.providers import chat, language_model, prompts

KEY_VARIABLE = "OPENAI_API_KEY"
DEFAULT_MODEL = "gpt-4.1"
_RETRIES = 2


class OpenAIProvider(language_model.LanguageModelProvider):
    """Asks OpenAI."""

    def __init__(self, api_key: str, model: str, endpoint: str, timeout_s: float) -> None:
        """Prepares a client; connects on first use.

        Args:
            api_key: from OPENAI_API_KEY.
            model: empty for the default.
            endpoint: base URL; empty for OpenAI's own.
            timeout_s: longest wait for one answer, the SDK's retries included.
        """
        self._model = model or DEFAULT_MODEL
        super().__init__(f"openai:{self._model}", timeout_s)
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=endpoint or None, timeout=timeout_s, max_retries=_RETRIES
        )

    async def aclose(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _complete(self, conversation: Sequence[prompts.Turn]) -> language_model.Completion:
        with chat.typed_errors(self.name, KEY_VARIABLE, self._timeout_s):
            completion = await self._client.chat.completions.create(
                model=self._model,
                messages=chat.messages(prompts.SYSTEM, conversation),
                response_format=chat.response_format(),
            )
        return chat.read(self.name, completion)
