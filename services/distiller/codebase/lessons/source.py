"""Source text as lessons need it: out of its indentation, as tokens, and in a form to compare.

Knows Python's syntax tree; of other languages only what strings, words and signs look like.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re

from services.distiller.codebase import chunks

PYTHON = "python"
_MOST_LEVELS = 120
"""Of a syntax tree: `ast.dump` and `ast.unparse` take up to four frames for each of them."""
_TOKEN = re.compile(
    r"""
    "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | `(?:\\.|[^`\\\n])*`
    | [^\W\d]\w* | \d[\w.]* | [^\w\s]
    """,
    re.VERBOSE,
)


def indent(text: str) -> str:
    """The white space before the first character."""
    return text[: len(text) - len(text.lstrip(" \t"))]


def dedented(text: str) -> str:
    """The text without the indentation of its first line.

    Lines that have less of it, such as those of a long string, stay as they are.
    """
    margin = indent(text)
    lines = [line.removeprefix(margin) for line in text.split("\n")]
    return "\n".join(line if line.strip() else "" for line in lines).rstrip()


def indented(text: str, margin: str) -> str:
    """The text with so much before each line that is not empty."""
    return "\n".join(f"{margin}{line}" if line else line for line in text.split("\n"))


@functools.lru_cache(maxsize=8192)
def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers, strings and signs; white space is left out."""
    return tuple(_TOKEN.findall(text))


def tree(text: str) -> ast.Module | None:
    """The syntax tree of Python, also where the text is indented; nothing where it is none.

    Nothing either where it is so deep that what walks it by recursion could not come to its end.
    """
    parsed = tree_of_any_depth(text)
    return parsed if parsed is not None and not _is_deep(parsed) else None


def tree_of_any_depth(text: str) -> ast.Module | None:
    """As `tree`, but for callers that do not go down into expressions."""
    try:
        return ast.parse(dedented(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=1024)
def normal(text: str, language: str) -> str:
    """A form in which two texts are equal where only layout and comments differ.

    For Python the syntax tree's own writing, else the tokens. Python that can't be parsed has none:
    the result is empty.
    """
    if language != PYTHON:
        return " ".join(tokens(text))
    parsed = tree(text)
    if parsed is None:
        return ""
    for node in ast.walk(parsed):
        _clean_docstring(node)
    return ast.unparse(parsed)


def head(chunk: chunks.Chunk) -> str:
    """What stands before the body: decorators, signature and docstring, indented as they stand."""
    if chunk.body and chunk.text.endswith(chunk.body):
        return chunk.text.removesuffix(chunk.body).rstrip()
    return chunk.signature


def bare(chunk: chunks.Chunk) -> str:
    """The definition without its docstring, out of its indentation; empty where it has no body."""
    if not chunk.body.strip():
        return ""
    margin = indent(chunk.text)
    signature = chunk.signature
    if not indent(signature):
        signature = margin + signature
    return dedented(f"{signature.rstrip()}\n{chunk.body.strip(chr(10))}")


def name(symbol: str) -> str:
    """The last part of a qualified name."""
    return symbol.rpartition(".")[2]


def number(*parts: str) -> int:
    """A number that looks random and is always the same for the same texts, 0 to 2^64 - 1."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode(errors="replace")).digest()[:8])


def _is_deep(parsed: ast.Module) -> bool:
    level: list[ast.AST] = [parsed]
    for _ in range(_MOST_LEVELS):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _clean_docstring(node: ast.AST) -> None:
    """Docstrings change with the indentation around them."""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
        return
    told = ast.get_docstring(node, clean=True)
    first = node.body[0] if node.body else None
    if told is not None and isinstance(first, ast.Expr):
        first.value = ast.Constant(told)
