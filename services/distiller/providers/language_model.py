"""What all teachers that are language models have in common: ask, pay, read, repair once, give up.

Knows no SDK: a subclass sends a conversation once and gives back text. Trying again, deadlines,
what it costs and keeping keys out of what is written down are the same for all and stand here.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import pydantic
import structlog

from services.distiller import spending
from services.distiller.providers import base, code, failures, masking, prompts, reply, retrying
from shared import errors
from shared.flight import datasets

S = TypeVar("S", bound=reply.Shape)
_log = structlog.get_logger(__name__)
MOST_FACTS_A_REPLY = 16
"""What a model writes well within the default timeout and its output limit."""
LONGEST_CONNECT_S = 10.0
"""A provider that can't be connected to in this time is down."""
_LONGEST_QUOTE = 4000
_TURN_TOKENS = 16
"""Around every message."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """What a model wrote."""

    text: str
    truncated: bool = False
    """It reached its output limit before it was done."""
    refusal: str | None = None
    """It did not want to answer; these are its words, if it had any."""
    tokens_in: int | None = None
    """As the provider counts; nothing where it told none."""
    tokens_out: int | None = None


_COMPLETION: pydantic.TypeAdapter[Completion] = pydantic.TypeAdapter(Completion)


@dataclasses.dataclass(frozen=True)
class Model:
    """Who is asked."""

    provider: str
    """openai, anthropic or local."""
    name: str
    """Of the model, at the provider."""
    free: bool = False
    """It costs nothing."""
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """Never to be written down."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """How a model is asked."""

    ledger: spending.Ledger
    """Knows the budget, and what was answered before."""
    timeout_s: float
    """For one answer, retries and the pauses between them included."""
    retries: int = 2
    max_output_tokens: int = 16_000
    """Of one answer."""


class LanguageModelProvider(base.CloudProvider):
    """A teacher that answers a prompt with JSON."""

    writes_code = True

    def __init__(self, model: Model, terms: Terms) -> None:
        """Takes who is asked, and how."""
        self.name = f"{model.provider}:{model.name}"
        self._model, self._terms = model, terms
        self._mask = masking.Mask(*model.secrets)

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """Asks the model, and asks it once more to repair what can't be read."""
        if request.document:
            raise errors.TeacherError(
                f"{self.name} can't read the document {request.document!r}; "
                "documents are read by provider_type documents"
            )
        conversation = [prompts.task(request, MOST_FACTS_A_REPLY)]
        answer = await self._answered(conversation, request.task_id, reply.FACTS)
        if not answer.facts:
            raise errors.NotFoundError(f"{self.name} is not sure of any answer")
        return reply.to_pairs(answer, request, self.name)

    async def write_code(self, request: base.CodeRequest) -> base.CodeAnswer:
        """Asks the model about a definition, and once more to repair what can't be read."""
        answer = await self._answered([code.task(request)], request.task_id, code.FORM)
        return code.to_answer(answer, self.name)

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """The title that the model gave to what it answered."""
        return base.Subject(reply.title_of(pairs[0]) if pairs else "")

    @abc.abstractmethod
    async def _complete(
        self, conversation: Sequence[prompts.Turn], form: reply.Form[Any] = reply.FACTS
    ) -> Completion:
        """Sends the conversation, once.

        Args:
            conversation: what was said so far.
            form: how to answer.

        Raises:
            errors.TeacherUnavailableError: down, timed out, out of quota; `failures.advice` says
                more.
            errors.TeacherError: does not accept the key or the request.
        """

    async def _answered(
        self, conversation: list[prompts.Turn], task_id: str, form: reply.Form[S]
    ) -> S:
        """The model's answer, after one try to repair it where it can't be read."""
        answer, reason = await self._ask(conversation, task_id, form)
        if answer is None:
            conversation.append(prompts.repair(reason))
            answer, reason = await self._ask(conversation, task_id, form)
        if answer is None:
            raise errors.TeacherError(
                f"{self.name}: its answer can't be used, also after it was asked to repair it: "
                f"{reason}; ask again or choose a more capable model"
            )
        return answer

    async def _ask(
        self, conversation: list[prompts.Turn], task_id: str, form: reply.Form[S]
    ) -> tuple[S | None, str]:
        # The conversation grows in place: a repair must show the model what it wrote.
        completion = await self._paid(conversation, task_id, form)
        if completion.refusal is not None:
            raise failures.refused(self.name, completion.refusal)
        if completion.truncated:
            reason = "it was cut off; write less"
        else:
            try:
                return reply.parse(completion.text, form), ""
            except reply.MalformedReplyError as error:
                reason = str(error)
        # Providers refuse empty messages.
        quote = completion.text[:_LONGEST_QUOTE] or "(nothing)"
        conversation.append(prompts.Turn("assistant", quote))
        return None, reason

    async def _paid(
        self, conversation: Sequence[prompts.Turn], task_id: str, form: reply.Form[Any]
    ) -> Completion:
        """The answer to a conversation: the one that was paid for before, or a new one."""
        order = self._order(conversation, task_id, form)
        before = self._terms.ledger.answer(order)
        if before is not None:
            try:
                return _COMPLETION.validate_json(before)
            except pydantic.ValidationError as error:
                _log.warning("kept answer ignored", task=task_id, reason=str(error))
        return await retrying.within(
            self.name,
            self._terms.timeout_s,
            self._terms.retries,
            lambda: self._attempt(conversation, order, form),
        )

    async def _attempt(
        self, conversation: Sequence[prompts.Turn], order: spending.Order, form: reply.Form[Any]
    ) -> Completion:
        ledger = self._terms.ledger
        number = ledger.open(order)
        _log.info(
            "teacher is asked",
            teacher=self.name,
            task=order.task_id,
            most_tokens=order.largest.tokens_in + order.largest.tokens_out,
        )
        # Whatever else ends the call, such as the deadline, leaves it at its estimate.
        try:
            completion = await self._complete(conversation, form)
        except errors.SkillmeshError as error:
            if not failures.advice(error).charged:
                ledger.release(number)
            error.args = (self._mask(str(error)),)
            # Its cause quotes the provider too, and whoever logs the error would print it.
            raise error from None
        completion = dataclasses.replace(
            completion,
            text=self._mask(completion.text),
            refusal=None if completion.refusal is None else self._mask(completion.refusal),
        )
        usage = _usage(completion, order.largest)
        ledger.settle(number, order, usage, _COMPLETION.dump_json(completion).decode())
        _log.info("teacher answered", teacher=self.name, **dataclasses.asdict(usage))
        return completion

    def _order(
        self, conversation: Sequence[prompts.Turn], task_id: str, form: reply.Form[Any]
    ) -> spending.Order:
        texts = [form.rules_with_shape, json.dumps(form.shape.model_json_schema())]
        texts += [turn.text for turn in conversation]
        turns = json.dumps([dataclasses.astuple(turn) for turn in conversation])
        return spending.Order(
            task_id=task_id,
            provider=self.name,
            model=self._model.name,
            free=self._model.free,
            conversation=hashlib.sha256(turns.encode()).hexdigest(),
            largest=spending.Usage(
                tokens_in=sum(spending.tokens(text) + _TURN_TOKENS for text in texts),
                tokens_out=self._terms.max_output_tokens,
                estimated=True,
            ),
        )


def _usage(completion: Completion, largest: spending.Usage) -> spending.Usage:
    # The SDKs hand over what came, whatever its type; gateways send zeros.
    told = (completion.tokens_in, completion.tokens_out)
    if isinstance(told[0], int) and isinstance(told[1], int) and min(told[0], told[1]) > 0:
        return spending.Usage(told[0], told[1])
    written = spending.tokens(completion.text + (completion.refusal or ""))
    return spending.Usage(largest.tokens_in, written, estimated=True)
