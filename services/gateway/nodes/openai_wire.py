"""OpenAI's protocol as the gateway asks it of others: requests, pieces, errors.

Knows nothing about cards but the form of their names at vLLM with the project's plugin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

from services.gateway import domain
from shared import errors

_SERVED = re.compile(r"([^@#\s]+@[0-9a-f]{64})(#\d+)?")
"""`name@digest#7`: the number tells adapters apart, and is no part of the card."""
_GAUGE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE)
_NOT_FOUND, _TIMED_OUT, _FULL, _FIRST_SERVER_ERROR = 404, 408, 429, 500
_KEY_STATUSES = frozenset({401, 403})


@dataclasses.dataclass(frozen=True)
class Part:
    """What one event of a stream tells."""

    text: str = ""
    logprobs: tuple[domain.TokenLogprob, ...] = ()
    model: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0
    """0 where it does not say."""


def card_of(model: str) -> str:
    """The card of a served model's name; empty for any other model."""
    found = _SERVED.fullmatch(model)
    return found.group(1) if found else ""


def load_of(metrics: str) -> tuple[int, int] | None:
    """Requests that run and wait, as vLLM's metrics say; None where they do not."""
    sums: dict[str, float] = {}
    for name, value in _GAUGE.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
    if not sums:
        return None
    return int(sums.get("running", 0)), int(sums.get("waiting", 0))


def chat_request(asked: domain.Conversation, model: str, last: str) -> dict[str, Any]:
    """The body of a chat completion.

    Args:
        asked: what.
        model: name at the server.
        last: what stands in place of the last message's text.
    """
    turns = [{"role": one.role, "content": one.content} for one in asked.messages]
    turns[-1]["content"] = last
    body: dict[str, Any] = {"messages": turns, **_common(asked.sampling, model)}
    if asked.sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": asked.sampling.top_logprobs}
    if asked.json_schema:
        body["response_format"] = _response_format(asked.json_schema)
    return body


def completion_request(asked: domain.Continuation, model: str) -> dict[str, Any]:
    """The body of a completion; what stands behind the cursor is left out, as vLLM refuses it."""
    body = {"prompt": asked.prefix, **_common(asked.sampling, model)}
    if asked.sampling.top_logprobs is not None:
        body["logprobs"] = asked.sampling.top_logprobs
    return body


def chat_part(chunk: Any) -> Part:
    """What an event of a chat's stream tells."""
    choice = next(iter(chunk.choices or ()), None)
    logprobs = choice.logprobs.content if choice is not None and choice.logprobs else ()
    return _part(
        chunk,
        "" if choice is None else choice.delta.content or "",
        tuple(
            domain.TokenLogprob(
                one.token,
                _utf8(one),
                one.logprob,
                tuple(
                    domain.Likely(top.token, _utf8(top), top.logprob) for top in one.top_logprobs
                ),
            )
            for one in logprobs or ()
        ),
    )


def completion_part(chunk: Any) -> Part:
    """What an event of a completion's stream tells."""
    choice = next(iter(chunk.choices or ()), None)
    found = None if choice is None else choice.logprobs
    logprobs: tuple[domain.TokenLogprob, ...] = ()
    if found is not None and found.tokens:
        tops = found.top_logprobs or [{}] * len(found.tokens)
        logprobs = tuple(
            domain.TokenLogprob(
                token,
                token.encode(),
                logprob,
                tuple(
                    domain.Likely(other, other.encode(), value)
                    for other, value in sorted((top or {}).items(), key=lambda one: -one[1])
                ),
            )
            for token, logprob, top in zip(
                found.tokens, found.token_logprobs or (), tops, strict=False
            )
        )
    return _part(chunk, "" if choice is None else choice.text or "", logprobs)


@contextlib.contextmanager
def typed_errors(address: str) -> Iterator[None]:
    """Turns the SDK's errors, and those of the HTTP library under it, into our own."""
    try:
        yield
    except (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError) as error:
        if isinstance(error.__cause__ or error, httpx2.ConnectTimeout):
            raise errors.UnavailableError(f"{address} can't be reached in time") from error
        raise errors.DeadlineError(f"{address} did not answer in time") from error
    except openai.APIStatusError as error:
        raise _of_status(address, error.status_code, error.message) from error
    except (openai.OpenAIError, httpx2.TransportError) as error:
        reason = str(error.__cause__ or error) or type(error).__name__
        raise errors.UnavailableError(f"{address} can't be reached: {reason}") from error
    except (ValueError, AttributeError, TypeError) as error:
        # A server that is not what it claims to be may send anything; the SDK does not check it.
        raise errors.UnavailableError(
            f"{address} answered with what is none of OpenAI's protocol ({error}); check "
            "gateway.nodes in config.yaml, and proxies on the way"
        ) from error


def _response_format(json_schema: str) -> dict[str, Any]:
    try:
        schema = json.loads(json_schema)
    except ValueError as error:
        raise errors.InvalidInputError(f"the JSON schema is no JSON: {error}") from error
    if not schema:
        return {"type": "json_object"}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _of_status(address: str, status: int, message: str) -> errors.SkillmeshError:
    said = f"{address} answered {status}: {message}"
    if status == _NOT_FOUND:
        return errors.NotFoundError(said)
    if status == _FULL:
        return errors.OverloadedError(said)
    if status == _TIMED_OUT or status >= _FIRST_SERVER_ERROR:
        return errors.UnavailableError(said)
    if status in _KEY_STATUSES:
        # The gateway's key, not the caller's: another node may have no such trouble.
        return errors.UnavailableError(f"{said}; check VLLM_API_KEY of the gateway")
    return errors.InvalidInputError(said)


def _common(sampling: domain.Sampling, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.max_new_tokens:
        body["max_tokens"] = sampling.max_new_tokens
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.top_k:
        body["extra_body"] = {"top_k": sampling.top_k}
    return body


def _part(chunk: Any, text: str, logprobs: tuple[domain.TokenLogprob, ...]) -> Part:
    choice = next(iter(chunk.choices or ()), None)
    usage = getattr(chunk, "usage", None)
    return Part(
        text=text,
        logprobs=logprobs,
        model=chunk.model or "",
        finish="" if choice is None else choice.finish_reason or "",
        prompt_tokens=0 if usage is None else usage.prompt_tokens or 0,
        new_tokens=0 if usage is None else usage.completion_tokens or 0,
    )


def _utf8(token: Any) -> bytes:
    return bytes(token.bytes) if token.bytes is not None else token.token.encode()
