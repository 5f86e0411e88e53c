"""Completions: what an editor has before the cursor, and what the repository goes on with.

The cursor stands where a statement begins, or within a line. Before it stands a file in small: the
imports that the definition uses, the head of its class, and the definition as far as it goes.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import source

MOST_LINES = 16
"""Of what is to be completed; nobody waits for more."""
_WITHIN_EVERY = 3
"""One in so many definitions with a completion that begins within a line has no other one."""
_LEAST_CHARACTERS = 6
"""Of what is to be completed within a line."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """A text, parted by the cursor."""

    before: str
    after: str


def completions(chunk: chunks.Chunk, parents: Mapping[str, chunks.Chunk]) -> list[Completion]:
    """At most two completions of a definition: from a statement's beginning, and within a line.

    Args:
        chunk: a function or method with a body.
        parents: classes of the same file, by symbol.
    """
    if chunk.form == chunks.Form.CLASS or not chunk.body.strip():
        return []
    above = file_head(chunk, parents)
    text = _standing(chunk)
    seed = source.number("completion", chunk.path, chunk.symbol)
    found: list[Completion] = []
    if chunk.language == source.PYTHON:
        starts, within = _python_places(text)
        kinds = [starts, within] if seed % _WITHIN_EVERY else [within or starts]
    else:
        kinds = [list(_line_places(text, chunk.body))]
    for places in kinds:
        for turn in range(len(places)):
            start, end = places[(seed // 3 + turn) % len(places)]
            made = Completion(above + text[:start], text[start:end])
            if parses(made, chunk.language):
                found.append(made)
                break
    return found


def parses(one: Completion, language: str) -> bool:
    """Whether both parts together are source text; of Python alone it can be told here."""
    return language != source.PYTHON or source.tree(one.before + one.after) is not None


def file_head(chunk: chunks.Chunk, parents: Mapping[str, chunks.Chunk]) -> str:
    """Imports and the heads of the classes around it, as they would stand above it."""
    above = "\n".join(chunk.imports)
    above += "\n\n\n" if above else ""
    if chunk.language != source.PYTHON:
        return above
    margin = source.indent(_standing(chunk))
    names = chunk.symbol.split(".")[:-1] if margin else []
    for depth in range(len(names)):
        parent = parents.get(".".join(names[: depth + 1]))
        if parent is None or parent.form != chunks.Form.CLASS:
            told = f"{' ' * 4 * depth}class {names[depth]}:"
        else:
            told = _first_indented(parent.signature, parent.text).rstrip()
        above += f"{told}\n"
    return above


def _standing(chunk: chunks.Chunk) -> str:
    """The definition as it stands; a function within a function as if it stood alone."""
    nested = chunk.form == chunks.Form.FUNCTION and chunk.language == source.PYTHON
    return source.dedented(chunk.text) if nested else chunk.text


def _first_indented(signature: str, text: str) -> str:
    return signature if source.indent(signature) else source.indent(text) + signature


def _python_places(text: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Spans that may be completed: of statements to the definition's end, and within lines."""
    tree = source.tree(text)
    if tree is None or not tree.body:
        return [], []
    margin = len(source.indent(text))
    lines = text.split("\n")
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)

    def at(line: int, column_bytes: int) -> int:
        # The tree was made of the text out of its indentation; it counts bytes.
        told = lines[line - 1]
        kept = margin if told[:margin].strip() == "" and told.strip() else 0
        return offsets[line - 1] + kept + len(told[kept:].encode()[:column_bytes].decode())

    starts, within = list[tuple[int, int]](), list[tuple[int, int]]()
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return [], []
    for node in _statements(definition):
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)
        if len(lines) - node.lineno < MOST_LINES:
            starts.append((start, len(text)))
        if not hasattr(node, "body") and "\n" not in text[start:end]:
            within += _cuts(text, start, end)
    return starts, within


def _cuts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Places between the tokens of a line, behind the first of them."""
    place = start
    for token in source.tokens(text[start:end]):
        place = text.index(token, place) + len(token)
        # Not within `==` or `...`: nobody stops there.
        whole = text[place - 1] not in "=." or text[place : place + 1] != text[place - 1]
        if end - place >= _LEAST_CHARACTERS and text[place - 1] in "(=.,[" and whole:
            yield place, end


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Those below a node, but for docstrings and the insides of nested definitions."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for at, child in enumerate(getattr(node, field, ())):
            if field == "body" and at == 0 and _documents(node):
                continue
            if isinstance(child, ast.stmt):
                yield child
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _statements(child)


def _documents(node: ast.AST) -> bool:
    """Whether its first statement is a docstring."""
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    )


def _line_places(text: str, body: str) -> Iterator[tuple[int, int]]:
    """Beginnings of the body's lines, but for its last: what follows is more than a bracket."""
    first = len(text) - len(body)
    place, lines = first, body.split("\n")
    for at, line in enumerate(lines[:-1]):
        if at and line.strip() and len(lines) - at <= MOST_LINES:
            yield place + len(source.indent(line)), len(text)
        place += len(line) + 1
