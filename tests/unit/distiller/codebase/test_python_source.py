"""Python definitions keep every character, with their parts told apart."""

from __future__ import annotations

import ast
import pathlib
import textwrap

import pytest

from services.distiller.codebase import chunks, definitions, python_source

_TEXT = '''"""Module."""
from __future__ import annotations

import os.path as osp
import shared.errors
from . import near
from .far import thing as it, other

@decorated(1)
@twice
def load(
    path: str,  # where
) -> dict[str, int]:
    # Not part of the head.
    """Loads it.

    From a file.
    """

    data = it(path)
    return near.parse(data)


class Store(Base):
    """Keeps things."""

    size: int = 3

    @property
    def name(self) -> str:
        return osp.join("a", self.path)

    @name.setter
    def name(self, value: str) -> None:
        self.check(value)
        self.path = value.strip().lower()

    def empty(self): ...

    class Inner:
        def go(self): return shared.errors.brief("x")

    async def fetch(self, url):
        def inner():
            return self.name
        return await inner()


if True:
    def one_line(x): return x + 1
else:
    @overload
    def one_line(x): ...
'''


def _parsed(text: str = _TEXT) -> dict[str, definitions.Definition]:
    return {one.symbol: one for one in python_source.parse("a/b.py", text).definitions}


def test_definitions_of_modules_classes_and_branches_are_found_but_not_nested_functions():
    found = _parsed()
    assert list(found) == [
        "load", "Store", "Store.name", "Store.empty", "Store.Inner", "Store.Inner.go",
        "Store.fetch", "one_line",
    ]  # fmt: skip
    assert found["load"].form is chunks.Form.FUNCTION
    assert found["Store.fetch"].form is chunks.Form.METHOD
    assert found["Store.Inner"].form is chunks.Form.CLASS


def test_head_docstring_and_body_are_told_apart():
    load = _parsed()["load"]
    assert load.signature.startswith("@decorated(1)\n@twice\ndef load(\n    path: str,  # where\n")
    assert load.signature.endswith(") -> dict[str, int]:")
    assert load.docstring == "Loads it.\n\nFrom a file."
    assert load.body == "    data = it(path)\n    return near.parse(data)"
    assert load.line == 9
    short = _parsed()["one_line"]
    assert (short.signature, short.body) == ("    def one_line(x):", "return x + 1")


def test_longer_definition_is_kept_when_two_have_one_symbol():
    assert "@name.setter" in _parsed()["Store.name"].text


def test_definition_without_a_body_is_trivial():
    found = _parsed()
    assert {symbol for symbol, one in found.items() if one.is_trivial} == {"Store.empty"}
    abstract = _parsed('def f(self):\n    """Does."""\n    raise NotImplementedError("f")\n')
    assert abstract["f"].is_trivial


def test_imports_are_told_with_their_targets():
    imports = python_source.parse("a/b.py", _TEXT).imports
    assert [(i.name, i.target, i.text) for i in imports] == [
        ("osp", "os.path", "import os.path as osp"),
        ("shared", "shared", "import shared.errors"),
        ("near", ".near", "from . import near"),
        ("it", ".far.thing", "from .far import thing as it"),
        ("other", ".far.other", "from .far import other"),
    ]


def test_calls_are_told_with_the_definition_they_stand_in():
    calls = {(c.name, c.caller) for c in python_source.parse("a/b.py", _TEXT).calls}
    assert ("near.parse", "load") in calls
    assert ("shared.errors.brief", "Store.Inner.go") in calls
    assert ("inner", "Store.fetch") in calls
    assert ("?.lower", "Store.name") in calls


def test_variable_stands_for_its_class_when_the_function_says_so():
    text = "def f(a: Router, b):\n    c = shop.Cart(1)\n    a.select(); b.go(); c.pay()\n"
    calls = {call.name for call in python_source.parse("x.py", text).calls}
    assert {"Router.select", "b.go", "shop.Cart.pay"} <= calls


@pytest.mark.parametrize("text", ["def f(:", "x = '\0'", "\x00", "class", "é = = 1", "\ud800 = 1"])
def test_text_that_is_no_python_is_refused(text):
    with pytest.raises(definitions.DoesNotParseError):
        python_source.parse("a.py", text)


def test_columns_are_right_behind_characters_of_several_bytes():
    found = _parsed('def f(ä="日本"): "Döc"; return ä\n')["f"]
    assert found.signature == 'def f(ä="日本"):'
    assert (found.docstring, found.body) == ("Döc", "return ä")


def test_every_definition_of_this_project_is_whole():
    root = pathlib.Path(__file__).parents[4]
    seen = 0
    for path in sorted([*root.glob("services/*/*.py"), *root.glob("shared/**/*.py")]):
        if "_pb2" in path.name:
            continue
        parsed = python_source.parse(str(path), path.read_text())
        for one in parsed.definitions:
            seen += 1
            first = parsed.lines[one.line - 1]
            assert one.text.startswith(first)
            assert one.text.startswith(one.signature)
            assert one.text.endswith(one.body)
            tree = ast.parse(textwrap.dedent(one.text)).body[0]
            assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            assert (ast.get_docstring(tree) or "") == one.docstring
            if one.docstring and one.body:
                rebuilt = f"{one.signature}\n{one.body}"
                assert ast.parse(textwrap.dedent(rebuilt))
    assert seen > 1_000
