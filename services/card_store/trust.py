"""Whose cards a store takes: those of its keyring, but for the keys that its catalogue revokes.

The catalogue is asked every time: it outlives the process, peers revoke too, and several stores may
share it. Calls block: use a thread.
"""

from __future__ import annotations

from services.card_store import records
from services.card_store.catalogue import retirement
from shared.cards import signature


class Trust:
    """Looks at cards before they are published."""

    def __init__(self, by_keyring: signature.Trust, retired: retirement.Retirement) -> None:
        """Takes the keyring's trust, and what knows the revoked keys."""
        self._by_keyring, self._retired = by_keyring, retired

    def verify(self, record: records.CardRecord) -> str:
        """The id of the key that signed a card; see `signature.Trust.verify`.

        Raises:
            errors.UntrustedError: says what is wrong with the signature.
            errors.UnavailableError: the catalogue can't be read now.
        """
        self._by_keyring.revoke(self._retired.revoked_keys())
        return self._by_keyring.verify(record)
