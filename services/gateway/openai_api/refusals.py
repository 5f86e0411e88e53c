"""Errors in the shape of OpenAI's protocol: one table from `shared.errors` to status and code.

The `openai` package retries 408, 409, 429 and 5xx by itself, and reads `retry-after-ms` and
`retry-after` for the pause: what no retry mends must not have such a status.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import fastapi
import grpc
import structlog
from fastapi import exceptions
from starlette import exceptions as starlette_exceptions
from starlette import responses

from services.gateway.openai_api import invalid_bodies
from shared import errors

_log = structlog.get_logger(__name__)
_RETRY_S = 1.0
_NAME_SHOWN = 300
"""Characters of a model that is not there: more tells nobody anything."""
_REQUEST, _SERVER = "invalid_request_error", "server_error"


class ParameterError(errors.InvalidInputError):
    """One parameter of a request is wrong."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        """Takes its name, what is wrong with it, and OpenAI's code for that.

        The name is empty where the body as a whole is wrong.
        """
        super().__init__(message)
        self.param, self.code = param, code


class ModelNotFoundError(errors.NotFoundError):
    """No such model."""

    def __init__(self, name: str) -> None:
        """Takes the name that was asked for."""
        super().__init__(
            f"The model {name[:_NAME_SHOWN]!r} does not exist or you have no access to it; "
            "GET /v1/models lists those that may be asked"
        )


class ModelNotServedError(errors.NotFoundError):
    """A model that there is, and that no node answers with."""

    def __init__(self, name: str) -> None:
        """Takes the name that was asked for."""
        super().__init__(
            f"The model {name[:_NAME_SHOWN]!r} is served by no node: nodes serve the version of a "
            "card that `latest` points to, once it has come; ask its name alone, or promote it"
        )


class TooLargeError(errors.InvalidInputError):
    """The body of a request is larger than it may be."""


class LimitError(errors.OverloadedError):
    """A key has asked for as much as it may, for now."""

    def __init__(self, kind: str, message: str, retry_s: float, headers: Mapping[str, str]) -> None:
        """Takes what ran out, `requests` or `tokens`, and when it may be asked for again."""
        super().__init__(message)
        self.kind, self.retry_s, self.headers = kind, retry_s, headers


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An error as OpenAI's protocol tells it."""

    status: int
    """Of HTTP."""
    type: str
    code: str | None
    message: str
    param: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """What is sent."""
        told = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": told}

    def response(self) -> responses.Response:
        """The answer to a request that is refused."""
        return responses.JSONResponse(self.body(), self.status, dict(self.headers))


_TABLE: tuple[tuple[type[errors.SkillmeshError], int, str, str], ...] = (
    # The first that fits counts: subclasses stand before their parents.
    (errors.UnauthenticatedError, 401, _REQUEST, "invalid_api_key"),
    (errors.ForbiddenError, 403, _REQUEST, "insufficient_permissions"),
    (ModelNotFoundError, 404, _REQUEST, "model_not_found"),
    (ModelNotServedError, 404, _REQUEST, "model_not_found"),
    (errors.NotFoundError, 404, _REQUEST, "not_found"),
    (TooLargeError, 413, _REQUEST, "request_too_large"),
    (errors.InvalidInputError, 400, _REQUEST, "invalid_value"),
    (errors.AlreadyExistsError, 400, _REQUEST, "already_exists"),
    (errors.CapacityError, 400, _REQUEST, "too_large_for_this_model"),
    (errors.TeacherError, 400, _REQUEST, "failed_precondition"),
    (errors.PreconditionError, 400, _REQUEST, "failed_precondition"),
    (LimitError, 429, "requests", "rate_limit_exceeded"),
    (errors.OverloadedError, 429, _SERVER, "overloaded"),
    (errors.DeadlineError, 504, _SERVER, "timeout"),
    (errors.TeacherUnavailableError, 503, _SERVER, "unavailable"),
    (errors.UnavailableError, 503, _SERVER, "unavailable"),
)
_OF_STATUS = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}


def of(error: Exception) -> Refusal:
    """What a caller is told of an error; nothing of the inside where it is no fault of theirs."""
    row = next((row for row in _TABLE if isinstance(error, row[0])), None)
    if row is None or not isinstance(error, errors.SkillmeshError):
        _log.error("request failed", exc_info=error)
        message = "The server had an error while it worked on your request; its log tells more"
        return Refusal(500, _SERVER, "internal_error", message)
    _, status, kind, code = row
    message, param, headers = str(error), None, dict[str, str]()
    if isinstance(error, ParameterError):
        param, code = error.param or None, error.code
    if isinstance(error, errors.UnavailableError | errors.DeadlineError) and _is_raw(error):
        # gRPC's own words name addresses.
        _log.warning("service out of reach", reason=message)
        message = "A service of the cluster can't be reached in time right now; try again"
    if isinstance(error, LimitError):
        kind, headers = error.kind, dict(error.headers)
    if error.retryable:
        retry_s = error.retry_s if isinstance(error, LimitError) else _RETRY_S
        headers |= {
            "retry-after": str(math.ceil(retry_s)),
            "retry-after-ms": str(math.ceil(retry_s * 1000)),
        }
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Refusal(status, kind, code, message, param, headers)


def add_to(app: fastapi.FastAPI) -> None:
    """Has an app answer every error in this shape."""

    async def typed(request: fastapi.Request, error: Exception) -> responses.Response:
        return of(error).response()

    async def invalid(request: fastapi.Request, error: Exception) -> responses.Response:
        assert isinstance(error, exceptions.RequestValidationError)
        return of(
            ParameterError(*invalid_bodies.first_fault(error.errors(), error.body))
        ).response()

    async def http(request: fastapi.Request, error: Exception) -> responses.Response:
        assert isinstance(error, starlette_exceptions.HTTPException)
        return of_status(error.status_code, request.method, request.url.path, error).response()

    app.add_exception_handler(errors.SkillmeshError, typed)
    app.add_exception_handler(exceptions.RequestValidationError, invalid)
    app.add_exception_handler(starlette_exceptions.HTTPException, http)


def of_status(
    status: int, method: str, path: str, error: starlette_exceptions.HTTPException | None = None
) -> Refusal:
    """What a caller is told where the framework gives a status of its own."""
    told = str(error.detail) if error is not None else ""
    if status == 404:
        told = f"Invalid URL ({method} {path})"
    elif status == 405:
        told = f"Not allowed to {method} {path}"
    elif status == 400:
        told = "We could not parse the JSON body of your request: expected one JSON object in UTF-8"
    headers = dict(error.headers or {}) if error is not None else {}
    return Refusal(status, _REQUEST, _OF_STATUS.get(status), told, None, headers)


def _is_raw(error: Exception) -> bool:
    return isinstance(error.__cause__, grpc.RpcError)
