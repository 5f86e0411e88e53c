"""Events on disk until they are delivered: append, acknowledge, begin anew when all are gone.

One JSON object a line: an event, or the acknowledgement of one. Appended lines reach the operating
system at once, so they survive the death of the process, though not a power failure. Knows nothing
about delivery.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib


@dataclasses.dataclass(frozen=True)
class Dissonance:
    """A question that no card fits: the domain's `CognitiveDissonance`."""

    event_id: str
    """Idempotency key: delivered twice, counted once."""
    query: str
    confidence: float
    detected_at_ms: int
    """Unix time."""


class Spool:
    """One file of events; owned by one process."""

    def __init__(self, path: pathlib.Path) -> None:
        """Takes the file, which need not exist."""
        self._path = path
        self._file: int | None = None

    def open(self) -> list[Dissonance]:
        """Opens the file.

        Returns:
            The events that were never acknowledged, in their order.

        Raises:
            OSError: the folder can't be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        pending = self._read()
        draft = self._path.with_suffix(".draft")
        draft.write_bytes(b"".join(_line(dataclasses.asdict(event)) for event in pending))
        draft.replace(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        return pending

    def append(self, event: Dissonance) -> None:
        """Keeps an event.

        Raises:
            OSError: the disk is full or broken.
        """
        self._write(dataclasses.asdict(event))

    def acknowledge(self, event_id: str, last: bool) -> None:
        """Forgets a delivered event.

        Args:
            event_id: of the event.
            last: no event is pending any more, so the whole file can go.

        Raises:
            OSError: the disk is full or broken.
        """
        if last and self._file is not None:
            os.ftruncate(self._file, 0)
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

    def _read(self) -> list[Dissonance]:
        pending: dict[str, Dissonance] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            try:
                row = json.loads(line)
                if "done" in row:
                    pending.pop(str(row["done"]), None)
                else:
                    event = Dissonance(
                        event_id=str(row["event_id"]),
                        query=str(row["query"]),
                        confidence=float(row["confidence"]),
                        detected_at_ms=int(row["detected_at_ms"]),
                    )
                    pending[event.event_id] = event
            except (ValueError, KeyError, TypeError):
                # A line that a full disk or a power failure cut short: the others still count.
                continue
        return list(pending.values())


def _line(row: dict[str, object]) -> bytes:
    # Each line begins anew, so that one cut short does not take the next with it.
    return b"\n" + json.dumps(row).encode() + b"\n"
