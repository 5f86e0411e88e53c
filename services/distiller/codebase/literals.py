"""Where in a source text its strings and comments are: only there can a secret stand."""

from __future__ import annotations

import io
import itertools
import tokenize

from services.distiller.codebase import definitions, languages, tree_source

_OTHERS = frozenset({"ERROR", "jsx_text", "preproc_arg", "regex", "regex_pattern"})
"""Nodes of unread text besides strings and comments."""


def spans(text: str, language: languages.Language) -> list[tuple[int, int]]:
    """Start and end of each string and comment in characters, by start.

    Raises:
        definitions.DoesNotParseError: the text is not of the language.
    """
    if language is languages.PYTHON:
        return _of_python(text)
    return _of_tree(text, language)


def _of_python(text: str) -> list[tuple[int, int]]:
    starts = [0, *itertools.accumulate(len(line) + 1 for line in text.split("\n"))]
    try:
        return [
            (starts[t.start[0] - 1] + t.start[1], starts[t.end[0] - 1] + t.end[1])
            for t in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline)
            if t.type in (tokenize.STRING, tokenize.COMMENT)
        ]
    except (tokenize.TokenError, SyntaxError):
        raise definitions.DoesNotParseError("does not parse") from None


def _of_tree(text: str, language: languages.Language) -> list[tuple[int, int]]:
    data = text.encode(errors="replace")
    found: list[tuple[int, int]] = []
    cursor = tree_source.tree_of(data, language).walk()
    while True:
        node = cursor.node
        literal = node is not None and _is_literal(node.type)
        if node is not None and literal:
            found.append((node.start_byte, node.end_byte))
        if (not literal and cursor.goto_first_child()) or cursor.goto_next_sibling():
            continue
        while cursor.goto_parent():
            if cursor.goto_next_sibling():
                break
        else:
            break
    if text.isascii():
        return found
    characters, at, spans = 0, 0, []
    for start, end in found:
        first = characters + len(data[at:start].decode(errors="replace"))
        characters, at = first + len(data[start:end].decode(errors="replace")), end
        spans.append((first, characters))
    return spans


def _is_literal(kind: str) -> bool:
    return "string" in kind or "comment" in kind or "char" in kind or kind in _OTHERS
