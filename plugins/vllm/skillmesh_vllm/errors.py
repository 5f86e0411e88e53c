"""Why a card can't be served.

CardError
├── NotFoundError       the store knows no such card, or shows it to others only
├── UnavailableError    the store can't be asked, or refuses this token
├── DamagedError        what arrived is not the card that was asked for
└── MismatchError       the card belongs to another base model, or vLLM can't express it
"""

from __future__ import annotations


class CardError(Exception):
    """Root of all errors of this package; the message says what was wrong, where, what to do."""


class NotFoundError(CardError):
    """Nothing is known by that name."""


class UnavailableError(CardError):
    """The store did not answer, or not to us."""


class DamagedError(CardError):
    """Bytes do not match their digest, or are no card."""


class MismatchError(CardError):
    """A sound card that this vLLM must not load."""
