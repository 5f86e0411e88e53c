"""Plain English that every Python installation carries: docstrings and the language reference.

Nothing is copied into the repository; the text is read from the interpreter that trains.
"""

from __future__ import annotations

import ast
import pathlib
import pydoc_data.topics
import re
import sysconfig

_LEAST_CHARACTERS = 60
_LEAST_LETTER_SHARE = 0.72


def paragraphs() -> list[str]:
    """Paragraphs of prose from the standard library's docstrings and `pydoc_data.topics`."""
    texts = [str(topic) for topic in pydoc_data.topics.topics.values()]
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.parts and "test" not in path.parts:
            texts.extend(_docstrings(path))
    found = dict.fromkeys(
        " ".join(block.split()) for text in texts for block in re.split(r"\n\s*\n", text)
    )
    return [block for block in found if _is_prose(block)]


def sentences(blocks: list[str]) -> list[str]:
    """The sentences of paragraphs, those of five to thirty words."""
    parts = (part for block in blocks for part in re.split(r"(?<=[.!?])\s+", block))
    return [part for part in dict.fromkeys(parts) if 5 <= len(part.split()) <= 30]


def _docstrings(path: pathlib.Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return []  # lib2to3 and encoding tests ship files that do not parse on purpose
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, nodes))
    return [text for text in found if text]


def _is_prose(block: str) -> bool:
    if len(block) < _LEAST_CHARACTERS or ">>>" in block:
        return False
    letters = sum(ch.isalpha() or ch == " " for ch in block)
    return letters / len(block) > _LEAST_LETTER_SHARE * 1.2
