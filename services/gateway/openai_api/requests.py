"""The bodies of requests, as OpenAI's protocol has them, with a few fields of this project.

What OpenAI knows and this project does not offer is refused where it would change the answer, and
ignored where it would not; what nobody knows is refused, as OpenAI does. Types are strict: "0.5" is
no temperature.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pydantic
import pydantic_core

from services.gateway import domain
from services.gateway.openai_api import invalid_bodies
from shared.models import embedder_id

_SEEDS = 2**63
_MOST_TOP = 20
MOST_TEXTS = 2048
"""Of one request for embeddings."""


def _unsupported(message: str) -> pydantic_core.PydanticCustomError:
    return pydantic_core.PydanticCustomError(invalid_bodies.UNSUPPORTED, "{why}", {"why": message})


def _only(*neutral: object) -> pydantic.AfterValidator:
    """Takes the values that change nothing."""

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            raise _unsupported(f"not offered here; leave it out or send {json.dumps(neutral[0])}")
        return value

    return pydantic.AfterValidator(check)


def _as_text(content: object) -> object:
    """The text of a message whose content comes in parts."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise _unsupported(f"a part has the type {kind!r}; only text is read here")
        if not isinstance(part.get("text"), str):
            raise _unsupported("a part of type text needs a text")
        texts.append(part["text"])
    return "".join(texts)


def _as_tuple(stop: object) -> object:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else stop


def _is_text(text: str) -> str:
    """JSON can carry half a surrogate pair, which is no text: nothing could send it on."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair is no text") from error
    return text


AnyText = Annotated[str, pydantic.AfterValidator(_is_text)]
Text = Annotated[AnyText, pydantic.Field(min_length=1)]


class Body(pydantic.BaseModel):
    """Every body."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class StreamOptions(Body):
    """How an answer is streamed."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[AnyText, pydantic.BeforeValidator(_as_text)]
    name: str | None = None
    refusal: Annotated[Any, _only(None)] = None
    tool_calls: Annotated[Any, _only([])] = None
    function_call: Annotated[Any, _only(None)] = None
    audio: Annotated[Any, _only(None)] = None
    annotations: Any = None


class JsonSchema(Body):
    """A schema that the answer has to fit."""

    name: str
    schema_: Annotated[dict[str, Any] | None, pydantic.Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None
    """An answer fits the schema either way."""


class ResponseFormat(Body):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @pydantic.model_validator(mode="after")
    def _is_whole(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema, and to no other")
        return self

    def wanted(self) -> str:
        """The JSON schema of the answer; empty for free text."""
        if self.type == "text":
            return ""
        schema = self.json_schema.schema_ if self.json_schema is not None else None
        return json.dumps({"type": "object"} if schema is None else schema)


class Asking(Body):
    """What chat and completions have in common."""

    model: Text
    max_tokens: Annotated[int, pydantic.Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, pydantic.Field(ge=0, le=2)] | None = None
    """Left out: 0, unlike OpenAI's 1. A small model that has learned a fact tells it where it takes
    the likeliest words, and makes some up where it draws them."""
    top_p: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    seed: Annotated[int, pydantic.Field(ge=-_SEEDS, lt=_SEEDS)] | None = None
    stop: Annotated[tuple[Text, ...], pydantic.BeforeValidator(_as_tuple)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Any, _only(1)] = None
    presence_penalty: Annotated[Any, _only(0)] = None
    frequency_penalty: Annotated[Any, _only(0)] = None
    logit_bias: Annotated[Any, _only({})] = None
    user: str | None = None
    metadata: Any = None
    """This and `user` change nothing."""
    top_k: Annotated[int, pydantic.Field(ge=0, lt=2**31)] | None = None
    """Not of OpenAI, but of many servers: only so many of the likeliest tokens; 0 for all."""

    @pydantic.field_validator("stream_options")
    @classmethod
    def _streams(
        cls, options: StreamOptions | None, before: pydantic.ValidationInfo
    ) -> StreamOptions | None:
        if options is not None and not before.data.get("stream"):
            raise ValueError("it may be given with stream: true alone")
        return options

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with what it used."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _sampling(self, most_tokens: int | None, top: int | None) -> domain.Sampling:
        # Of nothing but the likeliest tokens, top_p of 0 leaves the likeliest.
        greedy = self.top_p == 0
        return domain.Sampling(
            max_new_tokens=most_tokens or 0,
            temperature=0.0 if greedy else self.temperature or 0.0,
            top_p=1.0 if greedy or self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            seed=None if self.seed is None else self.seed % _SEEDS,
            stop=self.stop,
            top_logprobs=top,
        )


class ChatRequest(Asking):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], pydantic.Field(min_length=1)]
    max_completion_tokens: Annotated[int, pydantic.Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, pydantic.Field(ge=0, le=_MOST_TOP)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    functions: Annotated[Any, _only([])] = None
    function_call: Annotated[Any, _only("none", "auto")] = None
    modalities: Annotated[Any, _only(["text"])] = None
    audio: Annotated[Any, _only(None)] = None
    prediction: Annotated[Any, _only(None)] = None
    web_search_options: Annotated[Any, _only(None)] = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    """This and the six before change nothing."""
    agent: AnyText = ""
    """Of this project: whose memory answers."""
    no_learning: bool = False
    """An unknown question starts no learning."""
    max_cards: Annotated[int, pydantic.Field(ge=0, le=4)] = 0
    """That may answer together; 0 for the node's default."""

    @pydantic.field_validator("messages")
    @classmethod
    def _ends_with_a_user(cls, messages: list[Message]) -> list[Message]:
        if messages[-1].role != "user":
            raise ValueError("the last message must be a user's: it is what is answered")
        if not messages[-1].content.strip():
            raise ValueError("the last message is empty; ask something")
        return messages

    @pydantic.field_validator("top_logprobs")
    @classmethod
    def _belongs_to_logprobs(cls, top: int | None, before: pydantic.ValidationInfo) -> int | None:
        if top is not None and not before.data.get("logprobs"):
            raise ValueError("it may be given with logprobs: true alone")
        return top

    def asked(self, model: str) -> domain.Conversation:
        """What is asked of a node; `model` as nodes know it."""
        top = (self.top_logprobs or 0) if self.logprobs else None
        return domain.Conversation(
            messages=tuple(
                domain.Message("system" if one.role == "developer" else one.role, one.content)
                for one in self.messages
            ),
            model=model,
            sampling=self._sampling(self.max_completion_tokens or self.max_tokens, top),
            json_schema=self.response_format.wanted() if self.response_format else "",
            no_learning=self.no_learning,
            agent=self.agent,
            max_cards=self.max_cards,
        )


def _as_prompt(prompt: object) -> object:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if isinstance(prompt, list):
        raise _unsupported("one text a request; tokens and several prompts are not read here")
    return prompt


class CompletionRequest(Asking):
    """Body of /v1/completions: what comes at a place in a text."""

    suffix: AnyText | None = None
    """What stands behind the place."""
    prompt: Annotated[AnyText, pydantic.BeforeValidator(_as_prompt)]
    logprobs: Annotated[int, pydantic.Field(ge=0, le=_MOST_TOP)] | None = None
    """Likeliest tokens to tell beside each one."""
    echo: Annotated[Any, _only(False)] = None
    best_of: Annotated[Any, _only(1)] = None
    path: AnyText = ""
    """Of this project: of the file, which says whose card is asked."""

    @pydantic.field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str, before: pydantic.ValidationInfo) -> str:
        if not (prompt or before.data.get("suffix")):
            raise ValueError("it is empty, and so is suffix; send the text to go on from")
        return prompt

    def asked(self, model: str) -> domain.Continuation:
        """What is asked of a node; `model` as nodes know it."""
        return domain.Continuation(
            prefix=self.prompt,
            suffix=self.suffix or "",
            path=self.path,
            model=model,
            sampling=self._sampling(self.max_tokens, self.logprobs),
        )


def _as_texts(texts: object) -> object:
    if isinstance(texts, list) and texts and not isinstance(texts[0], str):
        raise _unsupported(
            "send texts: tokens of other models are not read here (LangChain: "
            "check_embedding_ctx_length=False)"
        )
    return [texts] if isinstance(texts, str) else texts


class EmbeddingRequest(Body):
    """Body of /v1/embeddings."""

    model: Text
    input: Annotated[
        list[Text],
        pydantic.BeforeValidator(_as_texts),
        pydantic.Field(min_length=1, max_length=MOST_TEXTS),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Any, _only(embedder_id.DIMENSION)] = None
    user: str | None = None


class AdapterRequest(Body):
    """Body of /v1/load_lora_adapter and /v1/unload_lora_adapter."""

    lora_name: Text
    """Name of a card, as `model` names one."""
    lora_path: Any = None
    load_inplace: Any = None
    lora_int_id: Any = None
    """This and the one before, which vLLM knows, change nothing."""

    @pydantic.field_validator("lora_path")
    @classmethod
    def _is_no_path(cls, path: object) -> object:
        if path is not None:
            raise _unsupported(
                "adapters are cards of the store, by name and signed; no file of a path is loaded. "
                "Publish the card, then send its lora_name alone"
            )
        return path


class FeedbackRequest(Body):
    """Body of /v1/feedback."""

    question: Text
    answer: AnyText = ""
    """That was given."""
    card: AnyText = ""
    """`name@digest` that gave it; empty: the bare base model."""
    rating: Literal["right", "wrong"]
    correction: AnyText = ""
    """The right answer, of a wrong one."""
    agent: AnyText = ""
    """That shall remember the right answer, too."""
    idempotency_key: AnyText = ""
    """The same again is taken once; empty: a new one."""

    @pydantic.field_validator("correction")
    @classmethod
    def _is_of_a_wrong_answer(cls, correction: str, before: pydantic.ValidationInfo) -> str:
        if correction and before.data.get("rating") == "right":
            raise ValueError("a right answer needs none")
        return correction

    @pydantic.field_validator("agent")
    @classmethod
    def _has_something_to_remember(cls, agent: str, before: pydantic.ValidationInfo) -> str:
        told = "answer" if before.data.get("rating") == "right" else "correction"
        if agent and not before.data.get(told):
            raise ValueError(f"it remembers a right answer: send it as {told}")
        return agent

    @property
    def right_answer(self) -> str:
        """What is right, as far as they say."""
        return self.answer if self.rating == "right" else self.correction
