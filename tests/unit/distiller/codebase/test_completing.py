from __future__ import annotations

import ast

import pytest

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import completing
from tests.unit.distiller.codebase import code_bases


def completions(text: str, symbol: str, paths: int = 40) -> list[completing.Completion]:
    """What the places of a definition are for files of several names."""
    found = []
    for at in range(paths):
        every = code_bases.definitions(text, f"f{at}.py")
        found += completing.completions(every[symbol], every)
    return found


@pytest.mark.parametrize("symbol", ["Halves.of", "Halves.roots", "later"])
def test_both_parts_are_what_the_file_holds_when_they_are_put_together(symbol: str) -> None:
    definition = code_bases.definitions()[symbol].text
    made = completions(code_bases.SOURCE, symbol)
    assert made
    for one in made:
        whole = one.before + one.after
        ast.parse(whole)
        assert one.after.strip()
        # From the definition on, nothing differs from the file but where the completion ends.
        assert definition.startswith(whole[whole.index(definition[:12]) :])
        assert one.before.startswith("import math\n") == (symbol == "Halves.roots")
        assert ("class Halves:\n" in one.before) == symbol.startswith("Halves")


def test_the_cursor_stands_within_a_line_for_a_share_of_them() -> None:
    made = completions(code_bases.SOURCE, "Halves.of")
    within = [one for one in made if one.before.rpartition("\n")[2].strip()]
    assert 0.2 < len(within) / len(made) < 0.8
    assert all("\n" not in one.after for one in within)
    # The others have the indentation before the cursor, as an editor puts it there.
    others = [one for one in made if one not in within]
    assert all(one.before.endswith("    ") and not one.after[0].isspace() for one in others)


def test_the_docstring_is_never_completed_when_there_is_one() -> None:
    for one in completions(code_bases.SOURCE, "Halves.of"):
        assert "nothing smaller is given back" in one.before


def test_a_long_body_is_completed_from_where_its_end_is_near() -> None:
    lines = "".join(f"    x{at} = run({at})\n" for at in range(60))
    made = completions(f"def long():\n{lines}", "long")
    assert made
    assert max(one.after.count("\n") + 1 for one in made) <= completing.MOST_LINES


def test_letters_of_several_bytes_move_no_cursor() -> None:
    text = "class A:\n    def f(self):\n        é = g('ü', 1)\n        return é\n"
    made = completions(text, "A.f")
    assert made
    for one in made:
        assert text.startswith(one.before + one.after)


def test_nothing_is_completed_when_there_is_no_body() -> None:
    every = code_bases.definitions()
    assert completing.completions(every["Halves"], every) == []
    empty = chunks.Chunk("a.py", "f", chunks.Form.FUNCTION, "python", "", "", "", "", 1)
    assert completing.completions(empty, {}) == []


def test_lines_are_completed_when_the_language_is_not_python() -> None:
    body = "\n  const half = n / 2;\n  if (half < 0) {\n    return 0;\n  }\n  return half;\n}"
    text = "function half(n) {" + body
    chunk = chunks.Chunk(
        "a.js", "half", chunks.Form.FUNCTION, "javascript", text, "function half(n) {", "", body, 1
    )
    (made,) = completing.completions(chunk, {})
    assert made.before + made.after == text
    assert made.after.endswith("}")


def test_no_cursor_stands_within_an_operator() -> None:
    text = "def f(a, b, c):\n    found = a == b or c[a] == values[...]\n    return found\n"
    made = completions(text, "f")
    ends = {one.before[-1] for one in made if not one.before[-1].isspace()}
    assert ends >= {"=", "["}
    assert all(one.before[-1] != one.after[0] for one in made)
