"""`AnthropicProvider`: Anthropic's models as teachers, held to a JSON schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import anthropic
from anthropic import types

from services.distiller.providers import language_model, prompts, reply

KEY_VARIABLE = "ANTHROPIC_API_KEY"
DEFAULT_MODEL = "claude-sonnet-5"
_RETRIES = 2
_MAX_TOKENS = 16_000


class AnthropicProvider(language_model.LanguageModelProvider):
    """Asks Anthropic."""

    def __init__(self, api_key: str, model: str, endpoint: str, timeout_s: float) -> None:
        """Prepares a client; connects on first use.

        Args:
            api_key: from ANTHROPIC_API_KEY.
            model: empty for the default.
            endpoint: base URL; empty for Anthropic's own.
            timeout_s: longest wait for one answer, the SDK's retries included.
        """
        self._model = model or DEFAULT_MODEL
        super().__init__(f"anthropic:{self._model}", timeout_s)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=endpoint or None, timeout=timeout_s, max_retries=_RETRIES
        )

    async def aclose(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _complete(self, conversation: Sequence[prompts.Turn]) -> language_model.Completion:
        # The SDK's `parse` is not used: it raises before the stop reason of a refusal can be
        # seen, and drops the text that the model needs in order to repair it.
        with self._typed_errors():
            message: object = await self._client.messages.create(
                model=self._model,
                max_tokens=_MAX_TOKENS,
                system=prompts.SYSTEM,
                messages=_messages(conversation),
                output_config=types.OutputConfigParam(
                    format=types.JSONOutputFormatParam(
                        type="json_schema", schema=anthropic.transform_schema(reply.Reply)
                    )
                ),
            )
        # A proxy may send any body; the SDK then hands over a string.
        if not isinstance(message, types.Message):
            return language_model.Completion("")
        text = "".join(block.text for block in message.content or () if block.type == "text")
        if message.stop_reason == "refusal":
            raise language_model.refused(self.name, text)
        return language_model.Completion(text, truncated=message.stop_reason == "max_tokens")

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except anthropic.APITimeoutError as error:
            raise language_model.timed_out(self.name, self._timeout_s) from error
        except anthropic.APIConnectionError as error:
            raise language_model.unreachable(self.name, str(error.__cause__ or error)) from error
        except anthropic.APIStatusError as error:
            raise language_model.from_status(
                self.name, error.status_code, error.message, KEY_VARIABLE
            ) from error
        except anthropic.AnthropicError as error:
            raise language_model.refused(self.name, str(error)) from error


def _messages(conversation: Sequence[prompts.Turn]) -> list[types.MessageParam]:
    return [
        types.UserMessageParam(role="user", content=turn.text)
        if turn.role == "user"
        else types.AssistantMessageParam(role="assistant", content=turn.text)
        for turn in conversation
    ]
