"""Whether a text is source code of a language without errors."""

from __future__ import annotations

from services.distiller.codebase import definitions, languages, tree_source
from services.distiller.codebase.lessons import source


def parses(text: str, language: str) -> bool:
    """Whether a definition, out of its indentation, parses.

    Args:
        text: a definition; in languages where methods stand in classes alone, a method as well.
        language: in lower case, as chunks name it.
    """
    if language == source.PYTHON:
        return source.tree(text) is not None
    grammars = [one for one in languages.ALL if one.name == language]
    wrapped = (text, f"class X {{\n{text}\n}}")
    return any(_clean(one, grammar) for grammar in grammars for one in wrapped)


def _clean(text: str, language: languages.Language) -> bool:
    try:
        tree = tree_source.tree_of(text.encode(errors="replace"), language)
    except definitions.DoesNotParseError:
        return False
    return not tree.root_node.has_error
