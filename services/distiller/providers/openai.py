"""`OpenAIProvider`: OpenAI's models as teachers, held to a JSON schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.distiller.providers import chat, language_model, masking, prompts, reply

KEY_VARIABLE = "OPENAI_API_KEY"
DEFAULT_MODEL = "gpt-4.1"


class OpenAIProvider(language_model.LanguageModelProvider):
    """Asks OpenAI."""

    def __init__(
        self, api_key: str, model: str, endpoint: str, terms: language_model.Terms
    ) -> None:
        """Prepares a client; connects on first use.

        Args:
            api_key: from OPENAI_API_KEY.
            model: empty for the default.
            endpoint: base URL; empty for OpenAI's own.
            terms: how it is asked.
        """
        secrets = (api_key, *masking.credentials(endpoint))
        super().__init__(
            language_model.Model("openai", model or DEFAULT_MODEL, secrets=secrets), terms
        )
        self._client = chat.client(api_key, endpoint, terms.timeout_s)

    async def aclose(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _complete(
        self, conversation: Sequence[prompts.Turn], form: reply.Form[Any] = reply.FACTS
    ) -> language_model.Completion:
        with chat.typed_errors(self.name, KEY_VARIABLE, self._terms.timeout_s):
            completion = await self._client.chat.completions.create(
                model=self._model.name,
                messages=chat.messages(form.rules, conversation),
                response_format=chat.response_format(form),
                max_completion_tokens=self._terms.max_output_tokens,
            )
            return chat.read(self.name, completion)
