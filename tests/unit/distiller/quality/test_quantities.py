"""One way of writing for times and measures."""

from __future__ import annotations

import pytest

from services.distiller.quality import quantities


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("from 3 pm to 3.30 p.m.", "from 15:00 to 15:30"),
        ("09:00 or 12 am", "9:00 or 0:00"),
        ("12 pm", "12:00"),
        ("15:00:30", "15:00:30"),
        ("1.5 a month, room 5 A", "1.5 a month, room 5 A"),
        ("a 7-hour trip of 5.25 kilometers", "a 7 h trip of 5.25 km"),
        ("20 °C, 20° C or 20 degrees Celsius", "20 celsius, 20 celsius or 20 celsius"),
        ("20% of 5 minutes", "20 percent of 5 min"),
        ("10 minus 3 misses", "10 minus 3 misses"),
    ],
)
def test_times_and_measures_are_written_in_one_way(text: str, plain: str) -> None:
    assert quantities.plain(text) == plain
