"""`Failover`: asks teachers in order until one answers; those that keep failing are left alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from services.distiller.providers import base, breaker, failures
from shared import errors, teacher_settings
from shared.flight import datasets

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_HANDED_ON = (errors.TeacherError, errors.BudgetError)
"""What is no failure of this cluster, and that the next teacher may not meet."""


@dataclasses.dataclass(frozen=True)
class _Failure:
    provider: str
    error: errors.SkillmeshError


class Failover(base.CloudProvider):
    """A chain of teachers that looks like one.

    A teacher that is unavailable, too dear for what is left, or answers nothing usable, hands over
    to the next. One that says its sources know nothing has answered: nobody further is asked.
    """

    def __init__(
        self,
        providers: Sequence[base.CloudProvider],
        clock: Callable[[], float],
        settings: teacher_settings.Breaker | None = None,
        on_failure: Callable[[str, errors.SkillmeshError], None] = lambda *_: None,
    ) -> None:
        """Takes the teachers in the order in which to ask.

        Args:
            providers: at least one.
            clock: seconds, monotonic.
            settings: when a teacher is left alone.
            on_failure: is told the name of a teacher that failed, and why.
        """
        self._on_failure = on_failure
        self._providers = tuple(providers)
        self._breakers = tuple(
            breaker.CircuitBreaker(provider.name, settings or teacher_settings.Breaker(), clock)
            for provider in providers
        )
        self.name = " > ".join(provider.name for provider in providers)
        self.queries_a_call = min(provider.queries_a_call for provider in providers)
        self.writes_code = any(provider.writes_code for provider in providers)
        self.repeats = frozenset[str]().union(*(provider.repeats for provider in providers))

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """Pairs of the first teacher that answers; `QAPair.teacher` says which one it was.

        Raises:
            errors.TeacherUnavailableError: all failed, at least one of them for now only; the
                message gives every teacher's reason.
            errors.BudgetError: all failed, none of them for now only, at least one because of a
                budget.
            errors.TeacherError: all failed, none of them for a reason that will pass by itself.
            errors.NotFoundError: the first teacher that could be asked knows nothing, nor does
                whom the request wants.
        """
        return await self._first(
            self._order(request.teacher),
            request.teacher,
            lambda provider: provider.generate_qa(request),
        )

    async def write_code(self, request: base.CodeRequest) -> base.CodeAnswer:
        """What the first of the language models in here that answers says."""
        return await self._first(
            [one for one in self._order("") if one[0].writes_code],
            "",
            lambda provider: provider.write_code(request),
        )

    async def _first(
        self,
        chain: Sequence[tuple[base.CloudProvider, breaker.CircuitBreaker]],
        first: str,
        ask: Callable[[base.CloudProvider], Awaitable[T]],
    ) -> T:
        failed: list[_Failure] = []
        for provider, guard in chain:
            if (refusal := guard.refusal()) is not None:
                failed.append(_Failure(provider.name, refusal))
                continue
            try:
                return await _guarded(guard, ask(provider))
            except errors.NotFoundError as error:
                if _is(first, provider):
                    # Asked out of turn: whoever comes first by right may know.
                    failed.append(_Failure(provider.name, error))
                    continue
                if not failed:
                    raise
                failed.append(_Failure(provider.name, error))
                break
            except errors.SkillmeshError as error:
                if not (error.retryable or isinstance(error, _HANDED_ON)):
                    raise
                self._on_failure(provider.name, error)
                _log.warning("teacher failed", teacher=provider.name, reason=str(error))
                failed.append(_Failure(provider.name, error))
        raise _all_failed(failed)

    def _order(self, first: str) -> list[tuple[base.CloudProvider, breaker.CircuitBreaker]]:
        """The teachers as they are asked: one that a request wants first, then in their order."""
        chain = list(zip(self._providers, self._breakers, strict=True))
        return sorted(chain, key=lambda one: not _is(first, one[0]))

    async def prepare(self) -> None:
        """Prepares every teacher."""
        for provider in self._providers:
            await provider.prepare()

    async def locate(self, queries: Sequence[str]) -> list[base.Location]:
        """What the first teacher that answers says the questions are about.

        Says nothing about whether a teacher is back: a language model answers this unasked.
        """
        failed: list[_Failure] = []
        for provider, guard in zip(self._providers, self._breakers, strict=True):
            if guard.circuit().state is not breaker.State.CLOSED:
                continue
            try:
                return await provider.locate(queries)
            except errors.SkillmeshError as error:
                if not error.retryable:
                    raise
                failed.append(_Failure(provider.name, error))
        if failed:
            raise _all_failed(failed)
        return await super().locate(queries)

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """As the teacher says that made the pairs."""
        for provider in self._providers:
            if pairs and provider.name == pairs[0].teacher:
                return await provider.subject(request, pairs)
        return base.Subject()

    def circuits(self) -> list[breaker.Circuit]:
        """How the circuits of all teachers stand."""
        return [guard.circuit() for guard in self._breakers]

    async def aclose(self) -> None:
        """Closes every teacher."""
        for provider in self._providers:
            await provider.aclose()


def _is(teacher: str, provider: base.CloudProvider) -> bool:
    return bool(teacher) and teacher in (provider.name, provider.name.partition(":")[0])


async def _guarded(guard: breaker.CircuitBreaker, asking: Awaitable[T]) -> T:
    """Asks, and tells the provider's circuit breaker what came of it."""
    guard.asks()
    try:
        answer = await asking
    except (errors.TeacherUnavailableError, failures.BarredError) as error:
        guard.failed(error)
        raise
    except (errors.TeacherError, errors.NotFoundError):
        guard.succeeded()
        raise
    except BaseException:
        # Over budget, stopped, or an error of this cluster, such as a router that restarts.
        guard.abandoned()
        raise
    guard.succeeded()
    return answer


def _all_failed(failed: Sequence[_Failure]) -> errors.SkillmeshError:
    reasons = "; ".join(f"{failure.provider}: {failure.error}" for failure in failed)
    message = f"no teacher could answer: {reasons}"
    if all(isinstance(failure.error, errors.NotFoundError) for failure in failed):
        return errors.NotFoundError(message)
    if any(failure.error.retryable for failure in failed):
        return errors.TeacherUnavailableError(message)
    if any(isinstance(failure.error, errors.BudgetError) for failure in failed):
        return errors.BudgetError(message)
    return errors.TeacherError(message)
