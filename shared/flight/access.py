"""Tokens in Flight calls: looked at before a byte of an upload is read.

The Flight side of `shared.rpc.access`; what a role may do is said in `shared.security.callers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.flight
import structlog

from shared import errors
from shared.security import callers

MIDDLEWARE = "access"
CARD_STORE, HIERARCHY = "Flight", "HierarchyFlight"
"""Names of the data planes in `shared.security.callers`."""
_log = structlog.get_logger(__name__)


class AccessMiddlewareFactory(pyarrow.flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Turns away who has no token, or one whose role may not call this."""

    def __init__(self, admitted: callers.Callers, service: str) -> None:
        """Takes those who may call, and the name of the data plane."""
        self._admitted, self._service = admitted, service

    def start_call(
        self,
        info: pyarrow.flight.CallInfo,
        headers: Mapping[str, Sequence[str | bytes]],
    ) -> CallerMiddleware:
        """Lets a call through, with its caller, or answers it with the reason why not."""
        values: dict[str, Any] = {key.lower(): value[0] for key, value in headers.items() if value}
        given = values.get("authorization", "")
        try:
            caller = self._admitted.identify(
                given.decode(errors="replace") if isinstance(given, bytes) else given
            )
            caller.check_may(f"{self._service}/{info.method.name}")
        except errors.UnauthenticatedError as error:
            raise pyarrow.flight.FlightUnauthenticatedError(str(error)) from error
        except errors.ForbiddenError as error:
            _log.info("call refused", method=info.method.name, reason=str(error))
            raise pyarrow.flight.FlightUnauthorizedError(str(error)) from error
        return CallerMiddleware(caller)


class CallerMiddleware(pyarrow.flight.ServerMiddleware):  # type: ignore[misc]
    """Carries the caller to the method that is called."""

    def __init__(self, caller: callers.Caller) -> None:
        """Takes the caller."""
        self.caller = caller


def caller_of(context: pyarrow.flight.ServerCallContext) -> callers.Caller:
    """Who calls."""
    middleware = context.get_middleware(MIDDLEWARE)
    assert isinstance(middleware, CallerMiddleware)
    return middleware.caller
