"""Who calls and what that role may do, by bearer tokens of which only hashes are kept.

Knows nothing about gRPC and Flight: whoever serves asks `Callers` before anything else happens.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import hmac
import pathlib
from collections.abc import Iterable
from typing import Annotated

import pydantic
import structlog

from shared import errors

EVERY_TENANT = "*"
"""As a tenant of a token: it sees the cards of all."""
Tenants = frozenset[str] | None
"""Whose cards a caller may see and be answered by, besides everybody's; None: all."""
_SCHEME = "bearer "
_log = structlog.get_logger(__name__)


class Role(enum.Enum):
    """What a caller is there for."""

    NODE = "node"
    """Serves or routes: lists, watches, gets, reports."""
    TRAINER = "trainer"
    """Makes cards: may do what a node may, and put and commit."""
    OPERATOR = "operator"
    """May do everything: promotes, deletes, revokes, teaches."""
    PEER = "peer"
    """Another card store: lists, watches, gets."""
    USER = "user"
    """Asks, by way of the gateway, and sees what is there."""
    TEACHER = "teacher"
    """A user who may say what is right: corrects answers, tells agents, has things learned.
    Whoever may correct may also poison."""


_OURS = frozenset({Role.NODE, Role.TRAINER, Role.OPERATOR})
_STORES = _OURS | {Role.PEER}
_PEOPLE = _OURS | {Role.USER, Role.TEACHER}
_ALL = frozenset(Role)
_TEACHERS = frozenset({Role.OPERATOR, Role.TEACHER})
_MAKERS = frozenset({Role.TRAINER, Role.OPERATOR})
_OPERATORS = frozenset({Role.OPERATOR})
_ALLOWED = {
    "CardStore/GetCard": _ALL,
    "CardStore/ListCards": _ALL,
    "CardStore/Watch": _STORES,
    "CardStore/BringCard": _STORES,
    "CardStore/GetStoreStatus": _ALL,
    "CardStore/ListAliasMoves": _PEOPLE,
    "CardStore/ListResidency": _PEOPLE,
    "CardStore/ReportResidency": _OURS,
    "CardStore/Commit": _MAKERS,
    "Flight/DO_GET": _STORES,
    "Flight/LIST_FLIGHTS": _STORES,
    "Flight/GET_FLIGHT_INFO": _STORES,
    "Flight/DO_PUT": _MAKERS,
    "Hierarchy/Join": _OURS,
    "Hierarchy/Watch": _OURS,
    "Hierarchy/GetHealth": _PEOPLE,
    "Hierarchy/GetHierarchyStatus": _PEOPLE,
    "HierarchyFlight/DO_GET": _OURS,
    "HierarchyFlight/DO_PUT": _OURS,
    "Router/Route": _PEOPLE,
    "Router/ReportAnswer": _OURS,
    "Router/Embed": _PEOPLE,
    "Router/ExplainRoute": _PEOPLE,
    "Router/TryCard": _MAKERS,
    "Router/GetRouterStatus": _PEOPLE,
    "Factory/ReportDissonance": _OURS,
    "Factory/FindTask": _PEOPLE,
    "Factory/GetTask": _PEOPLE,
    "Factory/ListTasks": _PEOPLE,
    "Factory/WatchTask": _PEOPLE,
    "Factory/Teach": _TEACHERS,
    "Factory/GiveFeedback": _TEACHERS,
    "Factory/GetCardFeedback": _PEOPLE,
    "Distiller/Locate": _MAKERS,
    "Distiller/Distil": _MAKERS,
    "Distiller/CancelDistil": _MAKERS,
    "Distiller/ListRepositories": _MAKERS,
    "Distiller/GetSpending": _MAKERS,
    "Distiller/GetDistillerStatus": _MAKERS | _PEOPLE,
    "Distiller/AddDocument": _TEACHERS,
    "Trainer/Train": _MAKERS,
    "Trainer/Prove": _MAKERS,
    "Trainer/Recheck": _MAKERS,
    "Gateway/GetMetrics": _OURS,
    "Inference/Generate": _PEOPLE,
    "Inference/GenerateStream": _PEOPLE,
    "Inference/Complete": _PEOPLE,
    "Inference/CompleteStream": _PEOPLE,
    "Inference/GetNodeStatus": _PEOPLE,
    "Agents/GiveFeedback": _OURS | _TEACHERS,
    "Agents/GetAgent": _PEOPLE,
    "Agents/ListAgents": _PEOPLE,
}
"""Who may call what. What does not stand here, operators may: a new call is closed until somebody
opens it."""


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who calls."""

    name: str
    """For people and logs."""
    role: Role
    tenants: Tenants
    """Whose cards it may see besides everybody's; None: all."""

    @property
    def tenant(self) -> str:
        """Whose questions it asks; empty where that is not one tenant's."""
        return only_tenant(self.tenants)

    def check_may(self, method: str) -> None:
        """Checks a call, such as `CardStore/Commit` or `Flight/DO_PUT`.

        Raises:
            errors.ForbiddenError: the role does not allow it.
        """
        allowed = _ALLOWED.get(method, _OPERATORS)
        if self.role not in allowed:
            roles = " or ".join(sorted(role.value for role in allowed))
            raise errors.ForbiddenError(
                f"{method}: the token {self.name!r} has the role {self.role.value}, and this takes "
                f"{roles}; use such a token"
            )


def only_tenant(tenants: Tenants) -> str:
    """Whose a question is that is asked with these; empty where that is not one tenant's."""
    return next(iter(tenants)) if tenants and len(tenants) == 1 else ""


def may_see(tenants: Tenants, owners: Iterable[str]) -> bool:
    """Whether a caller with these tenants may know of what belongs to some owners.

    Args:
        tenants: of the caller.
        owners: tenants; none: it is everybody's.
    """
    owned = frozenset(owners)
    return tenants is None or not owned or not tenants.isdisjoint(owned)


ANYBODY = Caller("anybody", Role.OPERATOR, None)
"""Every caller where no tokens are configured."""


class _Token(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
    role: Role
    tenants: tuple[str, ...] = ()

    def caller(self) -> Caller:
        """Makers without a tenant see all cards; others then see those of everybody alone."""
        is_open = EVERY_TENANT in self.tenants or (not self.tenants and self.role in _MAKERS)
        return Caller(self.name, self.role, None if is_open else frozenset(self.tenants))


_FILE = pydantic.TypeAdapter(list[_Token])


class Callers:
    """The tokens of one file; read again when it changes, so that one can be withdrawn."""

    def __init__(self, path: pathlib.Path | None = None) -> None:
        """Reads the file.

        Args:
            path: as `make certs` writes it; without one everybody may do everything.

        Raises:
            errors.ConfigError: it can't be read; says where.
        """
        self._path = path
        self._seen: object = None
        self._tokens: list[_Token] = []
        if path is not None:
            self._refresh(path)

    @property
    def tenants(self) -> frozenset[str]:
        """All that any token names, as they were read last."""
        named = {tenant for token in self._tokens for tenant in token.tenants}
        return frozenset(named - {EVERY_TENANT})

    def identify(self, authorization: str) -> Caller:
        """Who a call comes from.

        Args:
            authorization: its header of that name; empty where there is none.

        Raises:
            errors.UnauthenticatedError: there is no token, or nobody has it.
        """
        if self._path is None:
            return ANYBODY
        if not _shows_token(authorization):
            raise errors.UnauthenticatedError(
                "this call needs a token (authorization: Bearer TOKEN); set SKILLMESH_TOKEN or "
                "security.token_file"
            )
        try:
            self._refresh(self._path)
        except errors.ConfigError as error:
            # Closed: it may have been changed to keep somebody out.
            _log.error("no call is let in", reason=str(error))
            raise errors.UnauthenticatedError(
                "the tokens of this service can't be read; see its log"
            ) from error
        found = None
        given = hash_of(token_of(authorization))
        for token in self._tokens:
            # All of them, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(token.sha256, given):
                found = token
        if found is None:
            raise errors.UnauthenticatedError(
                "nobody is known here by this token; it may have been replaced: ask who runs the "
                "service for another"
            )
        return found.caller()

    def _refresh(self, path: pathlib.Path) -> None:
        try:
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            self._tokens = _FILE.validate_json(path.read_bytes())
            self._seen = seen
        except OSError as error:
            raise errors.ConfigError(f"security.tokens: {path} can't be read: {error}") from error
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise errors.ConfigError(
                f"security.tokens: {path} is wrong at {place or 'its beginning'}: {first['msg']}"
            ) from error


def hash_of(token: str) -> str:
    """What is kept of a token: SHA-256 in lower-case hex. Tokens are random, so no salt helps."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def token_of(authorization: str) -> str:
    """The token in an authorization header, however that is spelt; empty where there is none."""
    return authorization[len(_SCHEME) :].strip() if _shows_token(authorization) else ""


def header(token: str) -> str:
    """The authorization header of a token."""
    return f"Bearer {token}"


def _shows_token(authorization: str) -> bool:
    return authorization[: len(_SCHEME)].lower() == _SCHEME
