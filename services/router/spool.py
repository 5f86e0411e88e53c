"""Events on disk until they are delivered: append, acknowledge, begin anew when all are gone.

One JSON object a line: an event, or the acknowledgement of one; of two lines with one event the
later counts. Appended lines reach the operating system at once, so they survive the death of the
process, though not a power failure. Knows nothing about delivery.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from shared import answer_signals

_SPARE_LINES = 4_096
"""Lines beyond those needed, before the file is written anew."""


@dataclasses.dataclass(frozen=True)
class Dissonance:
    """A question that no card fits: the domain's `CognitiveDissonance`."""

    event_id: str
    """Idempotency key: delivered twice, counted once."""
    query: str
    confidence: float
    detected_at_ms: int
    """Unix time."""
    domain: str = ""
    """Of the nearest card, where one is near."""
    tenant: str = ""
    """Whose question it is, where callers have tenants."""
    signals: answer_signals.AnswerSignals | None = None
    """None where nobody told them."""
    traceparent: str = ""
    """Of the question's trace."""


class Spool:
    """One file of events; owned by one process."""

    def __init__(self, path: pathlib.Path, spare_lines: int = _SPARE_LINES) -> None:
        """Takes the file, which need not exist.

        Args:
            path: of the file.
            spare_lines: so many lines that nobody needs any more may be in it.
        """
        self._path = path
        self._spare_lines = spare_lines
        self._file: int | None = None
        self._pending: dict[str, Dissonance] = {}
        self._lines = 0

    def open(self) -> list[Dissonance]:
        """Opens the file.

        Returns:
            The events that were never acknowledged, in their order.

        Raises:
            OSError: the folder can't be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._pending = self._read()
        self._begin_anew()
        return list(self._pending.values())

    def append(self, event: Dissonance) -> None:
        """Keeps an event, in place of an earlier line of the same.

        Raises:
            OSError: the disk is full or broken.
        """
        self._pending[event.event_id] = event
        self._write(dataclasses.asdict(event))

    def acknowledge(self, event_id: str, last: bool) -> None:
        """Forgets a delivered event.

        Args:
            event_id: of the event.
            last: no event is pending any more, so the whole file can go.

        Raises:
            OSError: the disk is full or broken.
        """
        self._pending.pop(event_id, None)
        if last and self._file is not None:
            self._pending.clear()
            os.ftruncate(self._file, 0)
            self._lines = 0
        else:
            self._write({"done": event_id})

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, row: dict[str, object]) -> None:
        if self._file is None:
            raise OSError(f"the spool {self._path} is not open")
        os.write(self._file, _line(row))
        self._lines += 1
        if self._lines > len(self._pending) + self._spare_lines:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Writes what is pending into a new file, which then takes the old one's place."""
        draft = self._path.with_suffix(".draft")
        rows = (dataclasses.asdict(event) for event in self._pending.values())
        draft.write_bytes(b"".join(map(_line, rows)))
        draft.replace(self._path)
        self.close()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._lines = len(self._pending)

    def _read(self) -> dict[str, Dissonance]:
        pending: dict[str, Dissonance] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return pending
        for line in lines:
            try:
                row = json.loads(line)
                if "done" in row:
                    pending.pop(str(row["done"]), None)
                else:
                    event = _event(row)
                    pending[event.event_id] = event
            except (ValueError, KeyError, TypeError):
                # A line that a full disk or a power failure cut short: the others still count.
                continue
        return pending


def _event(row: dict[str, Any]) -> Dissonance:
    told = row.get("signals")
    return Dissonance(
        event_id=str(row["event_id"]),
        query=str(row["query"]),
        confidence=float(row["confidence"]),
        detected_at_ms=int(row["detected_at_ms"]),
        domain=str(row.get("domain", "")),
        tenant=str(row.get("tenant", "")),
        signals=None if told is None else answer_signals.AnswerSignals.from_json(told),
        traceparent=str(row.get("traceparent", "")),
    )


def _line(row: dict[str, object]) -> bytes:
    # Each line begins anew, so that one cut short does not take the next with it.
    return b"\n" + json.dumps(row).encode() + b"\n"
