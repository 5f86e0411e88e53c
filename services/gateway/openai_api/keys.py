"""Who asks: the keys of OpenAI's tools are the tokens of `security.tokens`.

Where no tokens are configured every key is taken, and none, as local servers do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import MutableMapping
from typing import Annotated, Any

import fastapi

from shared import errors
from shared.rpc import access
from shared.security import callers

_SENT = re.compile(r"[\x20-\x7e]*")
"""What a header of a gRPC call can carry."""
_STATE = "asker"


@dataclasses.dataclass(frozen=True)
class Asker:
    """Who sent a request."""

    caller: callers.Caller
    authorization: str = dataclasses.field(repr=False)
    """Their header of that name, for the calls that are made for them."""
    key: str = ""
    """Tells keys apart; empty for all where there are none."""

    def on_their_behalf(self) -> contextlib.AbstractContextManager[None]:
        """Calls within are theirs: what they may do is decided where it is done."""
        return access.on_behalf_of(self.authorization)


def identify(admitted: callers.Callers, authorization: str) -> Asker:
    """Who shows a header.

    Raises:
        errors.UnauthenticatedError: nobody that is known; says so as OpenAI's tools expect it.
    """
    shown = authorization.strip() if _SENT.fullmatch(authorization) else ""
    try:
        caller = admitted.identify(shown)
    except errors.UnauthenticatedError as error:
        if not shown:
            raise errors.UnauthenticatedError(
                "You didn't provide an API key: send one as `Authorization: Bearer KEY`; it is a "
                "token of this cluster (security.tokens)"
            ) from error
        raise errors.UnauthenticatedError(f"Incorrect API key provided: {error}") from error
    # Open to everybody: they share what one key may ask. Of the token, not of the header: that can
    # be spelt in many ways, each of which would have limits of its own.
    key = "" if caller is callers.ANYBODY else callers.hash_of(callers.token_of(shown))
    return Asker(caller, shown, key)


def keep(scope: MutableMapping[str, Any], asker: Asker) -> None:
    """Notes in a request's scope who sent it."""
    scope.setdefault("state", {})[_STATE] = asker


async def asker_of(request: fastapi.Request) -> Asker:
    """Who sent a request; a dependency of endpoints."""
    found = getattr(request.state, _STATE)
    assert isinstance(found, Asker)
    return found


Asked = Annotated[Asker, fastapi.Depends(asker_of)]
"""Who asks, as a parameter of endpoints."""
