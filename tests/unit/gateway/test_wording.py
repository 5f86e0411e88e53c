"""How the console says times."""

from __future__ import annotations

import pytest

from services.gateway.console import wording


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("2026-11-29T23:05:31+00:00", "2026-11-29 23:05 UTC"),
        ("2026-11-30T00:05:31+01:00", "2026-11-29 23:05 UTC"),
        ("2026-11-29T23:05:31", "2026-11-29T23:05:31"),
        ("some day", "some day"),
        ("", ""),
    ],
)
def test_time_of_a_card_is_said_in_utc_when_its_zone_is_known(told: str, said: str) -> None:
    assert wording.stamp(told) == said
