"""Chat completions through the `openai` SDK, as OpenAI itself and local servers speak them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import openai
from openai.types import chat, shared_params

from services.distiller.providers import language_model, prompts, reply


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


def response_format() -> shared_params.ResponseFormatJSONSchema:
    """Structured output: the JSON schema of a reply.

    The SDK's own `parse` is not used: it drops the text of an answer that does not fit, which the
    model needs in order to repair it.
    """
    return shared_params.ResponseFormatJSONSchema(
        type="json_schema",
        json_schema={"name": "facts", "schema": reply.Reply.model_json_schema(), "strict": True},
    )


def read(name: str, completion: object) -> language_model.Completion:
    """The text of an answer.

    Raises:
        errors.TeacherError: the model refused.
    """
    # A server that is not what it claims to be may send any body: the SDK then hands over a
    # string, or an object without choices.
    if not isinstance(completion, chat.ChatCompletion) or not completion.choices:
        return language_model.Completion("")
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise language_model.refused(
            name, choice.message.refusal or "its content filter stopped it"
        )
    return language_model.Completion(
        choice.message.content or "", truncated=choice.finish_reason == "length"
    )


@contextlib.contextmanager
def typed_errors(name: str, key: str, timeout_s: float) -> Iterator[None]:
    """Turns the SDK's errors into those of `shared.errors`."""
    try:
        yield
    except openai.APITimeoutError as error:
        raise language_model.timed_out(name, timeout_s) from error
    except openai.APIConnectionError as error:
        raise language_model.unreachable(name, str(error.__cause__ or error)) from error
    except openai.APIStatusError as error:
        raise language_model.from_status(name, error.status_code, error.message, key) from error
    except openai.OpenAIError as error:
        raise language_model.refused(name, str(error)) from error
