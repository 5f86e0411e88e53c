"""The exam of the demo: a document, questions about it with their answers, known questions.

Reads and checks files before anything starts. The document is all that a distiller ever sees;
of the questions only their wording travels, the way a user's questions do.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from services.gateway.command_line import teaching
from shared import errors, terminal

_HERE = pathlib.Path(__file__).parent
_DOCUMENT = _HERE / "demo_material" / "quillhaven.md"
_QUESTIONS = _HERE / "demo_material" / "quillhaven.json"
_KNOWN = _HERE.parents[2] / "shared/models/embedded/recipe/known_facts.jsonl"
_KNOWN_ASKED = 10
_SUFFIXES = (".md", ".txt")


@dataclasses.dataclass(frozen=True)
class Fact:
    """One fact of the document."""

    ask: str
    """The question that a user asks; it is learned."""
    unseen: str
    """The same in other words, which nobody sees before the exam."""
    answer: str


@dataclasses.dataclass(frozen=True)
class Known:
    """A question that the embedded base model answers by itself."""

    ask: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Exam:
    """All that a demo needs."""

    document: pathlib.Path
    text: str
    facts: tuple[Fact, ...]
    known: tuple[Known, ...]


def load(document: pathlib.Path | None, questions: pathlib.Path | None) -> Exam:
    """Reads the exam; without arguments the one that is shipped.

    Raises:
        terminal.UsageError: names the file and the field that is wrong.
    """
    if (document is None) != (questions is None):
        raise terminal.UsageError(
            "a document needs its own questions: give both, doc=PATH.md and questions=PATH.json"
        )
    path = document or _DOCUMENT
    if path.suffix.lower() not in _SUFFIXES:
        raise terminal.UsageError(f"document {path}: its name must end in .md or .txt")
    text = teaching.read_document(path)
    if not text.strip():
        raise terminal.UsageError(f"document {path} is empty")
    return Exam(path, text, read_facts(questions or _QUESTIONS), known())


def read_facts(path: pathlib.Path) -> tuple[Fact, ...]:
    """Reads `{"facts": [{"ask", "unseen", "answer"}]}`.

    Raises:
        terminal.UsageError: names the file and the field that is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise terminal.UsageError(f"questions {path}: {error.strerror}") from error
    except ValueError as error:
        raise terminal.UsageError(f"questions {path}: not JSON in UTF-8: {error}") from error
    rows = content.get("facts") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise terminal.UsageError(f"questions {path}: facts: expected a list of at least one fact")
    return tuple(_fact(path, number, row) for number, row in enumerate(rows))


def known() -> tuple[Known, ...]:
    """Ten general questions, spread over all that the embedded base was taught.

    Raises:
        errors.NotFoundError: the file of known facts is missing.
    """
    try:
        lines = _KNOWN.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise errors.NotFoundError(f"known questions {_KNOWN}: {error.strerror}") from error
    rows = [json.loads(line) for line in lines if line.strip()]
    count = min(_KNOWN_ASKED, len(rows))
    chosen = [rows[number * len(rows) // count] for number in range(count)]
    return tuple(Known(row["questions"][0], row["answer"]) for row in chosen)


def _fact(path: pathlib.Path, number: int, row: Any) -> Fact:
    if not isinstance(row, dict):
        raise terminal.UsageError(f"questions {path}: facts[{number}]: expected an object")
    values: dict[str, str] = {}
    for field in dataclasses.fields(Fact):
        value = row.get(field.name)
        if not isinstance(value, str) or not value.strip():
            raise terminal.UsageError(
                f"questions {path}: facts[{number}].{field.name}: expected a text"
            )
        values[field.name] = value.strip()
    return Fact(**values)
