"""Writes times of day and units of measure in one way, so that equal quantities look equal."""

from __future__ import annotations

import functools
import re

_CLOCK = re.compile(
    r"(?<![\d:.])(\d{1,2})(?:[:.]([0-5]\d))?\s*([ap])\.?m\b\.?"
    r"|(?<![\d:.])(\d{1,2}):([0-5]\d)(?![\d:])",
    re.I,
)
_HOURS = 12
_UNITS = {
    "km": "kilometres? kilometers?",
    "m": "metres? meters?",
    "cm": "centimetres? centimeters?",
    "mm": "millimetres? millimeters?",
    "mi": "miles?",
    "ft": "foot feet",
    "kg": "kilograms? kilogrammes? kilos?",
    "g": "grams? grammes?",
    "lb": "pounds? lbs",
    "l": "litres? liters?",
    "h": "hours? hrs?",
    "min": "minutes? mins",
    "s": "seconds? secs?",
    "percent": "%",
    "celsius": r"°\s*C degrees\s+(?:Celsius|centigrade)",
    "fahrenheit": r"°\s*F degrees\s+Fahrenheit",
}
_UNIT = re.compile(
    r"(?<=\d)[\s-]*(?:"
    + "|".join(f"(?P<{unit}>{'|'.join([unit, *forms.split()])})" for unit, forms in _UNITS.items())
    + r")(?!\w)",
    re.I,
)


@functools.lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """The text with `3 pm` as `15:00`, and `20 °C` or `20 degrees Celsius` as `20 celsius`."""
    return _UNIT.sub(lambda match: f" {match.lastgroup}", _CLOCK.sub(_on_the_clock, text))


def units(text: str) -> frozenset[str]:
    """The units that a text names behind numbers."""
    return frozenset(match.lastgroup or "" for match in _UNIT.finditer(text))


def _on_the_clock(match: re.Match[str]) -> str:
    half = (match[3] or "").lower()
    hour, minutes = int(match[1] or match[4]), match[2] or match[5] or "00"
    if half:
        hour = hour % _HOURS + (_HOURS if half == "p" else 0)
    return f"{hour}:{minutes}"
