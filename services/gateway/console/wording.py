"""How numbers, times and errors are said to people."""

from __future__ import annotations

import datetime
import time

from shared import errors

_DIGEST_SHOWN = 12
_STATUS_WORDS = {
    "PENDING": "Queued",
    "DISTILLING": "Distilling",
    "TRAINING": "Training",
    "EVALUATING": "Proving",
    "PUBLISHING": "Publishing",
    "COMPLETED": "Learned",
    "FAILED": "Failed",
    "CANCELLED": "Cancelled",
}
_STATUS_TONES = {"COMPLETED": "good", "FAILED": "bad", "CANCELLED": "plain", "PENDING": "plain"}


def status(name: str) -> str:
    """Of a task: `Training` for TRAINING."""
    return _STATUS_WORDS.get(name, name.capitalize())


def tone(name: str) -> str:
    """The colour of a task's status: good, bad, plain or busy."""
    return _STATUS_TONES.get(name, "busy")


def digest(full: str) -> str:
    """The beginning of a digest, enough to tell two apart."""
    return full[:_DIGEST_SHOWN]


def card(reference: str) -> str:
    """`name@digest` with a short digest."""
    name, _, full = reference.partition("@")
    return f"{name}@{digest(full)}" if full else name


def card_name(reference: str) -> str:
    """The name alone."""
    return reference.partition("@")[0]


def card_digest(reference: str) -> str:
    """The digest alone; empty where there is none."""
    return reference.partition("@")[2]


def duration(seconds: float) -> str:
    """`0.4 s`, `48 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(at_ms: int, now_s: float | None = None) -> str:
    """How long ago something was; a date where that is more than a week."""
    past_s = (time.time() if now_s is None else now_s) - at_ms / 1000
    for limit, length, unit in ((60, 1, ""), (3600, 60, "min"), (86400, 3600, "h")):
        if past_s < limit:
            return f"{int(past_s // length)} {unit} ago" if unit else "just now"
    if past_s < 7 * 86400:
        return f"{int(past_s // 86400)} d ago"
    return moment(at_ms)[:10]


def moment(at_ms: int) -> str:
    """A Unix time in UTC: `2026-11-29 19:20 UTC`."""
    at = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    return at.strftime("%Y-%m-%d %H:%M UTC")


def stamp(told: str) -> str:
    """A time of ISO 8601 as `moment` says it; as it is told where it is none or has no zone."""
    try:
        at = datetime.datetime.fromisoformat(told)
    except ValueError:
        return told
    return moment(int(at.timestamp() * 1000)) if at.tzinfo else told


def counted(number: int, one: str, more: str = "") -> str:
    """`1 card`, `3 cards`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def share(value: float) -> str:
    """`94 %`."""
    return f"{value:.0%}".replace("%", "\N{NO-BREAK SPACE}%")


def trouble(error: errors.SkillmeshError, service: str, again: bool) -> tuple[str, str]:
    """What is wrong, and what to do.

    Args:
        error: as a call raised it.
        service: who was called, such as `factory`.
        again: whether the page tries it again by itself.
    """
    if isinstance(error, errors.UnauthenticatedError):
        return "You are not signed in any more.", "Sign in again with your token."
    if isinstance(error, errors.ForbiddenError):
        return "Your token does not allow this.", "Ask somebody who has the role for it."
    if isinstance(error, errors.OverloadedError):
        return f"The {service} has too much to do.", "Try again in a moment."
    if isinstance(error, errors.DeadlineError):
        return f"The {service} took too long to answer.", "Try again in a moment."
    if isinstance(error, errors.UnavailableError):
        go_on = "This page goes on once it is back" if again else "Try again in a moment"
        return f"The {service} does not answer.", f"{go_on}; make status tells more."
    if isinstance(error, errors.InternalError):
        return f"The {service} failed.", f"Its log tells more: make logs service={service}"
    return f"The {service} says no.", str(error)
