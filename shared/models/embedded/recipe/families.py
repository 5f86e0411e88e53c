"""Question families: many wordings of the same question, with slots for what is asked about.

Written by hand for this project, one family a line in `families/*.jsonl`. Pure data: imports no
model, so that the document teacher can reword questions with the same families.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib

FOLDER = pathlib.Path(__file__).parent / "families"


@dataclasses.dataclass(frozen=True)
class Family:
    """One question in many wordings: `{x}` is the thing asked about, `{y}` a second one."""

    name: str
    value: str
    """The kind of value that answers it, such as `length` or `person`."""
    statements: tuple[str, ...]
    """Ways to state the fact, with `{v}` for the value, without a full stop."""
    questions: tuple[str, ...]
    """Ways to ask for it."""

    @property
    def takes_second(self) -> bool:
        """Whether the wordings have a second slot, `{y}`."""
        return "{y}" in self.questions[0]


def nouns() -> list[str]:
    """Concrete nouns that things are called by, such as `lighthouse`."""
    return (FOLDER.parent / "nouns.txt").read_text(encoding="utf-8").split()


@functools.cache
def load(folder: pathlib.Path = FOLDER) -> tuple[Family, ...]:
    """All families, in the order of their files."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append(
                Family(
                    name=row["name"],
                    value=row["value"],
                    statements=tuple(row["statements"]),
                    questions=tuple(row["questions"]),
                )
            )
    return tuple(found)
