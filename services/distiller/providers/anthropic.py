"""`AnthropicProvider`: Anthropic's models as teachers, held to a JSON schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
from anthropic import types

from services.distiller.providers import failures, language_model, masking, prompts, reply

KEY_VARIABLE = "ANTHROPIC_API_KEY"
DEFAULT_MODEL = "claude-sonnet-5"


class AnthropicProvider(language_model.LanguageModelProvider):
    """Asks Anthropic."""

    def __init__(
        self, api_key: str, model: str, endpoint: str, terms: language_model.Terms
    ) -> None:
        """Prepares a client; connects on first use.

        Args:
            api_key: from ANTHROPIC_API_KEY.
            model: empty for the default.
            endpoint: base URL; empty for Anthropic's own.
            terms: how it is asked.
        """
        secrets = (api_key, *masking.credentials(endpoint))
        super().__init__(
            language_model.Model("anthropic", model or DEFAULT_MODEL, secrets=secrets), terms
        )
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=endpoint or None,
            timeout=anthropic.Timeout(
                terms.timeout_s, connect=min(terms.timeout_s, language_model.LONGEST_CONNECT_S)
            ),
            max_retries=0,
        )

    async def aclose(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _complete(
        self, conversation: Sequence[prompts.Turn], form: reply.Form[Any] = reply.FACTS
    ) -> language_model.Completion:
        # The SDK's `parse` is not used: it raises before the stop reason of a refusal can be
        # seen, and drops the text that the model needs in order to repair it.
        with self._typed_errors():
            message: object = await self._client.messages.create(
                model=self._model.name,
                max_tokens=self._terms.max_output_tokens,
                system=form.rules,
                messages=_messages(conversation),
                output_config=types.OutputConfigParam(
                    format=types.JSONOutputFormatParam(
                        type="json_schema", schema=anthropic.transform_schema(form.shape)
                    )
                ),
            )
            return self._read(message)

    def _read(self, message: object) -> language_model.Completion:
        # A proxy may send any body; the SDK then hands over a string, or an object that lacks what
        # its type promises.
        if not isinstance(message, types.Message):
            raise failures.no_completion(self.name, f"a {type(message).__name__}")
        if not isinstance(getattr(message, "content", None), list):
            raise failures.no_completion(self.name, "no content")
        text = "".join(block.text for block in message.content if block.type == "text")
        usage = _usage(getattr(message, "usage", None))
        refused = message.stop_reason == "refusal"
        return language_model.Completion(
            "" if refused else text,
            truncated=message.stop_reason == "max_tokens",
            refusal=text if refused else None,
            tokens_in=usage[0],
            tokens_out=usage[1],
        )

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except anthropic.APIConnectionError as error:
            raise failures.disconnected(self.name, error, self._terms.timeout_s) from error
        except anthropic.APIStatusError as error:
            codes = tuple(code for code in (error.type, error.error_code) if code)
            raise failures.from_status(
                self.name,
                error.status_code,
                error.message,
                KEY_VARIABLE,
                error.response.headers,
                codes,
            ) from error
        except anthropic.AnthropicError as error:
            raise failures.refused(self.name, str(error)) from error
        except ValueError as error:
            raise failures.no_completion(self.name, f"what is no JSON ({error})") from error


def _usage(usage: types.Usage | None) -> tuple[int | None, int | None]:
    """Input tokens, those of the cache included, and output tokens."""
    if usage is None:
        return None, None
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return usage.input_tokens + cached, usage.output_tokens


def _messages(conversation: Sequence[prompts.Turn]) -> list[types.MessageParam]:
    return [
        types.UserMessageParam(role="user", content=turn.text)
        if turn.role == "user"
        else types.AssistantMessageParam(role="assistant", content=turn.text)
        for turn in conversation
    ]
