"""What all teachers that are language models have in common: ask, read, repair once, give up.

Knows no SDK: a subclass sends a conversation and gives back text. Statuses and errors of HTTP
become errors of `shared.errors` here, so that every provider fails over for the same reasons.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
from collections.abc import Sequence

from services.distiller.providers import base, prompts, reply
from shared import errors
from shared.flight import datasets

MOST_FACTS_A_REPLY = 16
"""What a model writes well within the default timeout and its output limit."""
_LONGEST_QUOTE = 4000
_OUT_OF_CREDIT, _UNAUTHORISED, _FORBIDDEN, _NOT_FOUND = 402, 401, 403, 404
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})
_FIRST_SERVER_ERROR = 500


@dataclasses.dataclass(frozen=True)
class Completion:
    """What a model wrote."""

    text: str
    truncated: bool = False
    """It reached its output limit before it was done."""


class LanguageModelProvider(base.CloudProvider):
    """A teacher that answers a prompt with JSON."""

    def __init__(self, name: str, timeout_s: float) -> None:
        """Takes the provider's name and the longest wait for one answer, retries included."""
        self.name = name
        self._timeout_s = timeout_s

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """Asks the model, and asks it once more to repair what can't be read."""
        if request.document:
            raise errors.TeacherError(
                f"{self.name} can't read the document {request.document!r}; "
                "documents are read by provider_type documents"
            )
        conversation = [prompts.task(request, MOST_FACTS_A_REPLY)]
        answer, reason = await self._ask(conversation)
        if answer is None:
            answer, reason = await self._ask([*conversation, prompts.repair(reason)])
        if answer is None:
            raise errors.TeacherError(
                f"{self.name}: its answer can't be used, also after it was asked to repair it: "
                f"{reason}; ask again or choose a more capable model"
            )
        if not answer.facts:
            raise errors.NotFoundError(f"{self.name} is not sure of any answer")
        return reply.to_pairs(answer, request, self.name)

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """The title that the model gave to what it answered."""
        return base.Subject(reply.title_of(pairs[0]) if pairs else "")

    @abc.abstractmethod
    async def _complete(self, conversation: Sequence[prompts.Turn]) -> Completion:
        """Sends the conversation.

        Raises:
            errors.TeacherUnavailableError: down, timed out, out of quota.
            errors.TeacherError: refused, or does not accept the key or the request.
        """

    async def _ask(self, conversation: list[prompts.Turn]) -> tuple[reply.Reply | None, str]:
        # The conversation grows in place: a repair must show the model what it wrote.
        try:
            async with asyncio.timeout(self._timeout_s):
                completion = await self._complete(conversation)
        except TimeoutError as error:
            raise timed_out(self.name, self._timeout_s) from error
        if completion.truncated:
            reason = "it was cut off; write fewer facts"
        else:
            try:
                return reply.parse(completion.text), ""
            except reply.MalformedReplyError as error:
                reason = str(error)
        # Providers refuse empty messages.
        quote = completion.text[:_LONGEST_QUOTE] or "(nothing)"
        conversation.append(prompts.Turn("assistant", quote))
        return None, reason


def timed_out(name: str, timeout_s: float) -> errors.TeacherUnavailableError:
    """The error of a teacher that took too long."""
    return errors.TeacherUnavailableError(
        f"{name} did not answer within {timeout_s:g} s (timeout_s in config.yaml)"
    )


def unreachable(name: str, reason: str) -> errors.TeacherUnavailableError:
    """The error of a teacher to which no connection could be made."""
    return errors.TeacherUnavailableError(f"{name} can't be reached: {reason}")


def from_status(name: str, status: int, message: str, key: str) -> errors.SkillmeshError:
    """The error behind an HTTP status.

    Args:
        name: the provider.
        status: HTTP status code.
        message: what the provider said.
        key: the environment variable that holds its key.
    """
    if status in (_UNAUTHORISED, _FORBIDDEN):
        return errors.TeacherError(f"{name} does not accept the key in {key}: {message}")
    if status == _OUT_OF_CREDIT or status in _RETRYABLE_STATUSES or status >= _FIRST_SERVER_ERROR:
        return errors.TeacherUnavailableError(f"{name} answered {status}: {message}")
    if status == _NOT_FOUND:
        return errors.TeacherError(
            f"{name}: no such model or endpoint ({message}); check evolution.model and "
            "evolution.endpoint in config.yaml"
        )
    return errors.TeacherError(f"{name} refused the request with {status}: {message}")


def refused(name: str, message: str) -> errors.TeacherError:
    """The error of a model that does not want to answer."""
    return errors.TeacherError(f"{name} refused to answer: {message or 'it gave no reason'}")
