"""Which version a skill's next card bears."""

from __future__ import annotations

import re
from collections.abc import Iterable

FIRST = "1.0.0"
_SEMANTIC = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def next_minor(published: Iterable[str]) -> str:
    """The next minor version after the highest one published; 1.0.0 for the first.

    Args:
        published: versions so far; what is not `major.minor.patch` is passed over.
    """
    matches = (_SEMANTIC.fullmatch(version) for version in published)
    numbers = [tuple(int(part) for part in match.groups()) for match in matches if match]
    if not numbers:
        return FIRST
    major, minor, _ = max(numbers)
    return f"{major}.{minor + 1}.0"
