"""Takes keys out of what providers say, before anyone writes it down.

Providers and proxies quote a key in the error that refuses it. What a teacher says ends in logs,
tasks and cards.
"""

from __future__ import annotations

import urllib.parse

MASK = "[key]"
_SHORTEST = 4
"""Anything shorter would stand in ordinary words."""


class Mask:
    """Knows the secrets of one provider."""

    def __init__(self, *secrets: str) -> None:
        """Takes the secrets; empty and very short ones are left out."""
        kept = {secret for secret in secrets if len(secret) >= _SHORTEST}
        # The longest first: one secret may begin with another.
        self._secrets = sorted(kept, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def password(endpoint: str) -> str:
    """The password in an address such as `https://user:password@host/v1`; empty for none."""
    return urllib.parse.urlsplit(endpoint).password or ""
