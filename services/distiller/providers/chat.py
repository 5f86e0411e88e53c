"""Chat completions through the `openai` SDK, as OpenAI itself and local servers speak them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import openai
from openai.types import chat, shared_params

from services.distiller.providers import failures, language_model, prompts, reply


def messages(
    system: str, conversation: Sequence[prompts.Turn]
) -> list[chat.ChatCompletionMessageParam]:
    """The conversation as the SDK wants it."""
    found: list[chat.ChatCompletionMessageParam] = [
        chat.ChatCompletionSystemMessageParam(role="system", content=system)
    ]
    for turn in conversation:
        if turn.role == "user":
            found.append(chat.ChatCompletionUserMessageParam(role="user", content=turn.text))
        else:
            found.append(
                chat.ChatCompletionAssistantMessageParam(role="assistant", content=turn.text)
            )
    return found


def response_format(form: reply.Form[Any]) -> shared_params.ResponseFormatJSONSchema:
    """Structured output: the JSON schema of a reply.

    The SDK's own `parse` is not used: it drops the text of an answer that does not fit, which the
    model needs in order to repair it.
    """
    return shared_params.ResponseFormatJSONSchema(
        type="json_schema",
        json_schema={"name": form.name, "schema": form.shape.model_json_schema(), "strict": True},
    )


def client(api_key: str, endpoint: str, timeout_s: float) -> openai.AsyncOpenAI:
    """A client that connects on first use and leaves retries to `retrying`."""
    return openai.AsyncOpenAI(
        api_key=api_key,
        base_url=endpoint or None,
        timeout=openai.Timeout(timeout_s, connect=min(timeout_s, language_model.LONGEST_CONNECT_S)),
        max_retries=0,
    )


def read(name: str, completion: object) -> language_model.Completion:
    """The text of an answer.

    Raises:
        failures.DownError: it is none of this protocol.
    """
    # A server that is not what it claims to be may send any body: the SDK then hands over a
    # string, or an object that lacks what its type promises.
    if not isinstance(completion, chat.ChatCompletion):
        raise failures.no_completion(name, f"a {type(completion).__name__}")
    choice = next(iter(completion.choices or ()), None)
    message = getattr(choice, "message", None)
    if choice is None or message is None:
        raise failures.no_completion(name, "no choices")
    refusal: str | None = message.refusal
    if refusal is None and choice.finish_reason == "content_filter":
        refusal = "its content filter stopped it"
    usage = completion.usage
    return language_model.Completion(
        message.content if isinstance(message.content, str) else "",
        truncated=choice.finish_reason == "length",
        refusal=refusal,
        tokens_in=getattr(usage, "prompt_tokens", None),
        tokens_out=getattr(usage, "completion_tokens", None),
    )


@contextlib.contextmanager
def typed_errors(name: str, key: str, timeout_s: float) -> Iterator[None]:
    """Turns the SDK's errors into those of `shared.errors`."""
    try:
        yield
    except openai.APIConnectionError as error:
        raise failures.disconnected(name, error, timeout_s) from error
    except openai.APIStatusError as error:
        codes = tuple(code for code in (error.code, error.type) if code)
        raise failures.from_status(
            name, error.status_code, error.message, key, error.response.headers, codes
        ) from error
    except openai.OpenAIError as error:
        raise failures.refused(name, str(error)) from error
    except ValueError as error:
        # Of the SDK's own reading of a body that is no JSON.
        raise failures.no_completion(name, f"what is no JSON ({error})") from error
