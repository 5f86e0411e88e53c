from __future__ import annotations

import urllib.parse

import pytest

from shared import errors

MOST_TRAILER_BYTES = 8192


@pytest.mark.parametrize("message", ["", "x", "é" * 900, "disk full; make space"])
def test_message_stays_as_it_is_when_it_is_short(message: str) -> None:
    assert errors.brief(message) == message


@pytest.mark.parametrize("quoted", ["a", "é", "\U0001f600", "\0", "\ud800"])
def test_message_keeps_its_ends_and_fits_a_trailer_when_it_quotes_something_long(
    quoted: str,
) -> None:
    brief = errors.brief(f"card {quoted * 100_000} is unknown; list the cards")
    assert brief.startswith("card ")
    assert brief.endswith(" is unknown; list the cards")
    # As gRPC writes it: every byte beyond ASCII takes three.
    assert len(urllib.parse.quote(brief)) < MOST_TRAILER_BYTES
