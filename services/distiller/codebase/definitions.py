"""What a parser finds in one file, before definitions of other files are known.

Every language's parser gives a `ParsedFile`; `linking` joins them to chunks.
"""

from __future__ import annotations

import dataclasses

from services.distiller.codebase import chunks


class DoesNotParseError(Exception):
    """A text that is not of its language; the message is the reason, in a few words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One place where something is called."""

    name: str
    """As written, with dots, such as `router.select`; `?` stands for what is not a name."""
    line: int
    """From 1."""
    caller: str
    """Symbol of the definition that it stands in; empty at the top of the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Import:
    """One imported name."""

    name: str
    """By which the file calls it."""
    target: str
    """What it stands for, with dots, such as `shared.errors`; leading dots are relative."""
    text: str
    """A line that imports it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Definition:
    """One definition of one file; the fields are those of `chunks.Chunk`."""

    symbol: str
    form: chunks.Form
    text: str
    signature: str
    docstring: str
    body: str
    line: int
    names: frozenset[str]
    """Identifiers in it."""
    statements: int
    """In its body, those of nested blocks counted too."""
    is_test: bool
    """It is a test, or helps tests."""
    is_trivial: bool
    """Nothing to learn: an empty body, or one that only raises or says that it is missing."""


@dataclasses.dataclass(frozen=True)
class ParsedFile:
    """One file."""

    path: str
    language: str
    lines: tuple[str, ...]
    definitions: tuple[Definition, ...]
    imports: tuple[Import, ...]
    calls: tuple[Call, ...]
    is_test: bool
    licence: str = ""
