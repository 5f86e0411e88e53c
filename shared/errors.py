"""Every error that crosses a module or a service, with its gRPC status and whether a retry helps.

    SkillmeshError
    ├── InvalidInputError        INVALID_ARGUMENT     the caller must change the request
    │   ├── CardFormatError      INVALID_ARGUMENT     a card's file or fields are wrong
    │   └── ConfigError          INVALID_ARGUMENT     config.yaml or the environment is wrong
    ├── NotFoundError            NOT_FOUND            no such card, task, document, module
    ├── AlreadyExistsError       ALREADY_EXISTS       the same name with other content
    ├── BaseModelMismatchError   FAILED_PRECONDITION  the card belongs to another base model
    ├── PreconditionError        FAILED_PRECONDITION  not in a state that allows this
    │   ├── BudgetError          FAILED_PRECONDITION  a call could cost more than a budget has left
    │   ├── CapacityError        FAILED_PRECONDITION  larger than a limit of this node allows
    │   ├── RevisionTooOldError  FAILED_PRECONDITION  the log no longer reaches back: list again
    │   └── UntrustedError       FAILED_PRECONDITION  unknown signer, bad signature, or revoked
    ├── UnauthenticatedError     UNAUTHENTICATED      no token or certificate, or an unknown one
    ├── ForbiddenError           PERMISSION_DENIED    the caller's role or tenant does not allow it
    ├── IntegrityError           DATA_LOSS            digest, size or count do not match
    ├── TeacherError             FAILED_PRECONDITION  a teacher answered, but not usably
    ├── TeacherUnavailableError  UNAVAILABLE          no teacher could be asked (retry later)
    ├── OverloadedError          RESOURCE_EXHAUSTED   a bounded queue is full (retry later)
    ├── DeadlineError            DEADLINE_EXCEEDED    took longer than the caller allowed
    ├── UnavailableError         UNAVAILABLE          a service can't be reached (retry)
    └── InternalError            INTERNAL             a defect of this project

A message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar

import grpc

_MOST_DETAILS_BYTES = 2000
"""Each may take three in a trailer."""


class SkillmeshError(Exception):
    """Root of all errors raised on purpose by this project."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    """The gRPC status that carries this error to another service."""
    retryable: ClassVar[bool] = False
    """Whether the same call can succeed later without any change by the caller."""


class InvalidInputError(SkillmeshError):
    """The request itself is wrong."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class CardFormatError(InvalidInputError):
    """A card's file or one of its fields is malformed; the message names the field."""


class ConfigError(InvalidInputError):
    """The configuration is wrong; the message names the key."""


class NotFoundError(SkillmeshError):
    """The thing named does not exist."""

    status = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(SkillmeshError):
    """The name is taken by something else."""

    status = grpc.StatusCode.ALREADY_EXISTS


class PreconditionError(SkillmeshError):
    """The thing exists but is not in a state that allows the request."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class CapacityError(PreconditionError):
    """Something can't fit, however long one waits; the message names the limit."""


class BudgetError(PreconditionError):
    """A call could cost more than is left; the message says how much, of what, and the key."""


class RevisionTooOldError(PreconditionError):
    """The revision log was compacted past the one asked for; list, and watch from there."""


class UntrustedError(PreconditionError):
    """A card's signature is missing, wrong, or of a signer who is unknown or revoked."""


class UnauthenticatedError(SkillmeshError):
    """The caller did not prove who it is."""

    status = grpc.StatusCode.UNAUTHENTICATED


class ForbiddenError(SkillmeshError):
    """The caller's role or tenant does not allow the request."""

    status = grpc.StatusCode.PERMISSION_DENIED


class BaseModelMismatchError(PreconditionError):
    """A card was made for another base model than the one loaded here."""


class IntegrityError(SkillmeshError):
    """Bytes do not match their digest, size or count."""

    status = grpc.StatusCode.DATA_LOSS


class TeacherError(PreconditionError):
    """A teacher was reached but gave nothing usable (refusal, bad key, wrong shape)."""


class TeacherUnavailableError(SkillmeshError):
    """No teacher could be asked: down, out of quota, or timed out."""

    status = grpc.StatusCode.UNAVAILABLE
    retryable = True


class OverloadedError(SkillmeshError):
    """A bounded queue is full."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    retryable = True


class DeadlineError(SkillmeshError):
    """The work took longer than the caller allowed."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED
    retryable = True


class UnavailableError(SkillmeshError):
    """A service cannot be reached right now."""

    status = grpc.StatusCode.UNAVAILABLE
    retryable = True


class InternalError(SkillmeshError):
    """A defect of this project: please report it with the log."""


def from_status(code: grpc.StatusCode, message: str, kind: str = "") -> SkillmeshError:
    """The error for a gRPC status.

    Args:
        code: the status that came over the wire.
        message: its details.
        kind: the class name that the server sent beside it, which tells subclasses apart.
    """
    for cls in _all_subclasses(SkillmeshError):
        if cls.__name__ == kind and cls.status is code:
            return cls(message)
    # Before the search: a service that cannot be reached names no class, and must not pass for a
    # teacher, the first error with this status.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return UnavailableError(message)
    for cls in SkillmeshError.__subclasses__():
        if cls.status is code:
            return cls(message)
    return InternalError(f"{code.name}: {message}")


def named(kind: str, message: str) -> SkillmeshError | None:
    """The error of a class that was named over a wire without statuses; None if there is none."""
    for cls in _all_subclasses(SkillmeshError):
        if cls.__name__ == kind:
            return cls(message)
    return None


def brief(message: str) -> str:
    """A message that fits into the trailers of a call, which end at 8 KB.

    Of one that quotes something long its beginning and its end are kept: what was wrong, and what
    to do about it.
    """
    data = message.encode(errors="replace")
    if len(data) <= _MOST_DETAILS_BYTES:
        return message
    kept = _MOST_DETAILS_BYTES // 2
    return f"{data[:kept].decode(errors='ignore')} … {data[-kept:].decode(errors='ignore')}"


def _all_subclasses(cls: type[SkillmeshError]) -> list[type[SkillmeshError]]:
    found = list(cls.__subclasses__())
    for sub in cls.__subclasses__():
        found.extend(_all_subclasses(sub))
    return found
