"""`Failover`: asks teachers in order until one answers, and remembers why the others did not."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from services.distiller.providers import base
from shared import errors
from shared.flight import datasets

_log = structlog.get_logger(__name__)
T = TypeVar("T")

SKIP_S = 30.0
"""A provider that was unavailable is left alone for this long."""


@dataclasses.dataclass(frozen=True)
class _Failure:
    provider: str
    error: errors.SkillmeshError
    until_s: float


class Failover(base.CloudProvider):
    """A chain of teachers that looks like one.

    A teacher that is unavailable, or answers nothing usable, hands over to the next. One that says
    its sources know nothing has answered: nobody further is asked.
    """

    def __init__(self, providers: Sequence[base.CloudProvider], clock: Callable[[], float]) -> None:
        """Takes the teachers in the order in which to ask.

        Args:
            providers: at least one.
            clock: seconds, monotonic.
        """
        self._providers = tuple(providers)
        self._clock = clock
        self._down: dict[int, _Failure] = {}
        self.name = " > ".join(provider.name for provider in providers)
        self.queries_a_call = min(provider.queries_a_call for provider in providers)

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """Pairs of the first teacher that answers; `QAPair.teacher` says which one it was.

        Raises:
            errors.TeacherUnavailableError: all failed, at least one of them for now only; the
                message gives every teacher's reason.
            errors.TeacherError: all failed, none of them for a reason that will pass by itself.
            errors.NotFoundError: the first teacher that could be asked knows nothing.
        """
        return await self._first(lambda provider: provider.generate_qa(request))

    async def prepare(self) -> None:
        """Prepares every teacher."""
        for provider in self._providers:
            await provider.prepare()

    async def locate(self, queries: Sequence[str]) -> list[base.Location]:
        """What the first teacher that answers says the questions are about."""
        return await self._first(lambda provider: provider.locate(queries))

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """As the teacher says that made the pairs."""
        for provider in self._providers:
            if pairs and provider.name == pairs[0].teacher:
                return await provider.subject(request, pairs)
        return base.Subject()

    async def aclose(self) -> None:
        """Closes every teacher."""
        for provider in self._providers:
            await provider.aclose()

    async def _first(self, ask: Callable[[base.CloudProvider], Awaitable[T]]) -> T:
        failures: list[_Failure] = []
        for at, provider in enumerate(self._providers):
            down = self._down.get(at)
            if down is not None and self._clock() < down.until_s:
                failures.append(down)
                continue
            try:
                found = await ask(provider)
            except errors.NotFoundError as error:
                if not failures:
                    raise
                failures.append(_Failure(provider.name, error, 0.0))
                break
            except errors.SkillmeshError as error:
                if not (error.retryable or isinstance(error, errors.TeacherError)):
                    raise
                failure = _Failure(provider.name, error, self._clock() + SKIP_S)
                _log.warning("teacher failed", teacher=provider.name, reason=str(error))
                failures.append(failure)
                # Other retryable errors come from this cluster, such as a router that restarts:
                # they pass sooner.
                if isinstance(error, errors.TeacherUnavailableError):
                    self._down[at] = failure
            else:
                self._down.pop(at, None)
                return found
        raise _all_failed(failures)


def _all_failed(failures: Sequence[_Failure]) -> errors.SkillmeshError:
    reasons = "; ".join(f"{failure.provider}: {failure.error}" for failure in failures)
    message = f"no teacher could answer: {reasons}"
    if any(failure.error.retryable for failure in failures):
        return errors.TeacherUnavailableError(message)
    return errors.TeacherError(message)
