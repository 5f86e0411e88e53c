"""How teachers fail: their errors, and what each tells about asking again.

Knows HTTP's statuses, headers and broken connections, but no SDK. They become errors of
`shared.errors` here, so that every provider is retried, left alone and passed over for the same
reasons.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import math
import time
from collections.abc import Callable, Mapping

import httpx2

from shared import errors

_UNAUTHORISED, _OUT_OF_CREDIT, _FORBIDDEN, _NOT_FOUND = 401, 402, 403, 404
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})
_FIRST_SERVER_ERROR = 500
_QUOTA_WORDS = ("quota", "billing", "credit", "spend_limit", "usage_limit")
"""In the codes of errors that waiting does not mend, such as OpenAI's `insufficient_quota` and
Anthropic's `billing_error`; both come with statuses that else ask for patience."""
_LONGEST_PAUSE_S = 86_400.0
"""A provider that asks for more than a day is asked again after one."""


@dataclasses.dataclass(frozen=True)
class Advice:
    """What a failure tells about asking again."""

    again: bool = False
    """The same request may succeed soon."""
    after_s: float | None = None
    """How long the provider asks to be left alone."""
    until_mended: bool = False
    """Nothing will succeed until a person has done something: another key, more credit."""
    charged: bool = False
    """The provider may have charged for it."""


class DownError(errors.TeacherUnavailableError):
    """A teacher that can't be asked now."""

    def __init__(self, message: str, advice: Advice | None = None) -> None:
        """Takes the message and what is known about asking again."""
        super().__init__(message)
        self.advice = advice or Advice()


class BarredError(errors.TeacherError):
    """A teacher that does not accept the key."""

    advice = Advice(until_mended=True)


def advice(error: BaseException) -> Advice:
    """What an error tells about asking again."""
    return error.advice if isinstance(error, DownError | BarredError) else Advice()


def timed_out(name: str, timeout_s: float, last: str = "") -> DownError:
    """The error of a teacher that took too long.

    Args:
        name: the provider.
        timeout_s: how long it was given.
        last: what an earlier try of the same request met.
    """
    before = f"; before that: {last}" if last else ""
    return DownError(
        f"{name} did not answer within {timeout_s:g} s (timeout_s in config.yaml){before}",
        Advice(charged=True),
    )


def disconnected(name: str, error: Exception, timeout_s: float) -> DownError:
    """The error of a connection that was never made, or ended before the answer did.

    Args:
        name: the provider.
        error: the SDK's, whose cause is the HTTP library's.
        timeout_s: how long it was given.
    """
    cause = error.__cause__ or error
    reason = str(cause) or type(cause).__name__
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return DownError(f"{name} can't be reached: {reason}", Advice(again=True))
    if isinstance(cause, httpx2.TimeoutException):
        return timed_out(name, timeout_s)
    return DownError(
        f"{name}: the connection broke before the answer was there: {reason}",
        Advice(again=True, charged=True),
    )


def no_completion(name: str, found: str) -> DownError:
    """The error of a server whose answer is none of the protocol's."""
    return DownError(
        f"{name} answered 200 with {found} instead of a completion; check evolution.endpoint in "
        "config.yaml, and proxies on the way",
        Advice(again=True, charged=True),
    )


def refused(name: str, message: str) -> errors.TeacherError:
    """The error of a model that does not want to answer."""
    return errors.TeacherError(f"{name} refused to answer: {message or 'it gave no reason'}")


def from_status(
    name: str,
    status: int,
    message: str,
    key: str,
    headers: Mapping[str, str] | None = None,
    codes: tuple[str, ...] = (),
) -> errors.SkillmeshError:
    """The error behind an HTTP status.

    Args:
        name: the provider.
        status: HTTP status code.
        message: what the provider said.
        key: the environment variable that holds its key.
        headers: of the answer, found by lower-case names.
        codes: the error's type and code, as the body names them.
    """
    if status in (_UNAUTHORISED, _FORBIDDEN):
        return BarredError(f"{name} does not accept the key in {key}: {message}")
    said = f"{name} answered {status}: {message}"
    if status == _OUT_OF_CREDIT or any(word in code for code in codes for word in _QUOTA_WORDS):
        return DownError(said, Advice(until_mended=True))
    if status in _RETRYABLE_STATUSES or status >= _FIRST_SERVER_ERROR:
        headers = headers or {}
        again = headers.get("x-should-retry", "").lower() != "false"
        return DownError(said, Advice(again=again, after_s=retry_after_s(headers)))
    if (headers or {}).get("x-should-retry", "").lower() == "true":
        return DownError(said, Advice(again=True, after_s=retry_after_s(headers or {})))
    if status == _NOT_FOUND:
        return errors.TeacherError(
            f"{name}: no such model or endpoint ({message}); check evolution.model and "
            "evolution.endpoint in config.yaml"
        )
    return errors.TeacherError(f"{name} refused the request with {status}: {message}")


def retry_after_s(
    headers: Mapping[str, str], now_s: Callable[[], float] = time.time
) -> float | None:
    """How long an answer asks to wait: `retry-after-ms`, or `Retry-After` (RFC 9110, 10.2.3).

    Args:
        headers: found by lower-case names.
        now_s: Unix time.

    Returns:
        Seconds, a day at most; nothing where the headers do not say, or not legibly.
    """
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        if not math.isnan(seconds):
            return min(max(seconds, 0.0), _LONGEST_PAUSE_S)
    try:
        at = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    # A date without a zone is in GMT, whatever this machine's own is.
    at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
    return min(max(at.timestamp() - now_s(), 0.0), _LONGEST_PAUSE_S)
