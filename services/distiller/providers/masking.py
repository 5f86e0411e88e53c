"""Takes keys out of what providers say, before anyone writes it down.

Providers and proxies quote a key in the error that refuses it. What a teacher says ends in logs,
tasks and cards.
"""

from __future__ import annotations

import base64
import urllib.parse

MASK = "[key]"
_SHORTEST = 4
"""Anything shorter would stand in ordinary words."""


class Mask:
    """Knows the secrets of one provider, in the forms in which HTTP libraries quote them."""

    def __init__(self, *secrets: str) -> None:
        """Takes the secrets; empty and very short ones are left out."""
        forms = {form for secret in secrets for form in _forms(secret)}
        kept = {form for form in forms if len(form) >= _SHORTEST}
        # The longest first: one secret may begin with another.
        self._secrets = sorted(kept, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def credentials(endpoint: str) -> tuple[str, ...]:
    """The secrets in an address such as `https://user:password@host/v1`; none where it has none.

    Both the password and what the two become in a header of basic authentication (RFC 7617).
    """
    told = urllib.parse.urlsplit(endpoint)
    if not told.password:
        return ()
    both = f"{told.username or ''}:{told.password}"
    encoded = {base64.b64encode(text.encode()).decode() for text in _forms(both)}
    return (told.password, *sorted(encoded))


def _forms(secret: str) -> set[str]:
    """A secret as it may be written: bare, as `repr` quotes it, and without percent-encoding."""
    quoted = {repr(secret)[1:-1], repr(secret.encode())[2:-1]}
    return {secret, secret.strip(), urllib.parse.unquote(secret), *quoted}
