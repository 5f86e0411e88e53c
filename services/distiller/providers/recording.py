"""A recording of a teacher: what was asked and what it answered, in the project's own JSONL."""

from __future__ import annotations

import pydantic

from shared.flight import datasets


class _Row(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class RecordedPair(_Row):
    """One pair of a recording."""

    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    kind: datasets.Kind = datasets.Kind.FACT


class Recording(_Row):
    """One line of the file: what was asked and what the teacher answered."""

    queries: tuple[str, ...] = ()
    topic: str = ""
    passage: str = ""
    """What the teacher had before it."""
    pairs: tuple[RecordedPair, ...]


def read(text: str) -> list[Recording]:
    """One recording a line.

    Raises:
        ValueError: a line is malformed; the message names line and field.
    """
    found = []
    # Not `splitlines`: JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        try:
            found.append(Recording.model_validate_json(line))
        except pydantic.ValidationError as error:
            raise ValueError(f"line {number}, {problem(error, 'the line')}") from error
    return found


def problem(error: pydantic.ValidationError, whole: str) -> str:
    """The first thing that is wrong, with its place; `whole` stands for the place of everything."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or whole
    return f"{place}: {first['msg']}"
