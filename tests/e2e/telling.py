"""What a running cluster tells: the spans in its folder, and the figures at its ports."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
import urllib.request
from collections.abc import Callable, Sequence

_WAIT_S = 60.0


@dataclasses.dataclass(frozen=True)
class Span:
    """One of a trace."""

    service: str
    name: str
    id: str
    parent: str
    """Empty for the first."""
    trace: str
    failed: bool


def spans(folder: pathlib.Path) -> list[Span]:
    """All that were written so far."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found.append(
                Span(
                    service=row["resource"]["attributes"]["service.name"],
                    name=row["name"],
                    id=row["context"]["span_id"].removeprefix("0x"),
                    parent=(row["parent_id"] or "").removeprefix("0x"),
                    trace=row["context"]["trace_id"].removeprefix("0x"),
                    failed=row["status"]["status_code"] == "ERROR",
                )
            )
    return found


def until(
    folder: pathlib.Path, trace: str, is_whole: Callable[[Sequence[Span]], bool]
) -> list[Span]:
    """The spans of a trace, which are written a moment after they ended."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        found = [span for span in spans(folder) if span.trace == trace]
        if is_whole(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def outline(found: Sequence[Span]) -> str:
    """A trace as people read it; what has no parent here stands at the margin."""
    ids = {span.id for span in found}
    lines: list[str] = []

    def add(span: Span, depth: int) -> None:
        lines.append("  " * depth + f"{span.name} ({span.service})")
        for child in found:
            if child.parent == span.id:
                add(child, depth + 1)

    for span in found:
        if span.parent not in ids:
            add(span, 0)
    return "\n".join(lines)


def metrics(address: str) -> str:
    """What a process tells Prometheus."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return str(answer.read().decode())
