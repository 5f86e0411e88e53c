from __future__ import annotations

import ast

import pytest

from services.distiller.codebase.lessons import faults, source
from tests.unit.distiller.codebase import code_bases


def faulty(text: str) -> set[str]:
    """Everything that may be made of a text."""
    made = {faults.faulty(text, seed) for seed in range(0, 7919 * 8, 251)}
    return {one for one in made if one is not None}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("return a < b", "return a <= b"),
        ("return a is not None", "return a is None"),
        ("return a not in b", "return a in b"),
        ("return (a) == (b)", "return (a) != (b)"),
        ("return a and b", "return a or b"),
        ("return a + b", "return a - b"),
        ("return a[1]", "return a[2]"),
        ("return a", "a"),
        ("return await a", "return a"),
        ("return await a", "await a"),
        ("return a", "return b"),
        ("if a:\n        b()", "if not a:\n        b()"),
        ("while not a:\n        b()", "while a:\n        b()"),
        ("return 3 if a < b else 4", "return 3 if not (a < b) else 4"),
        ("return f(a, b)", "return f(a)"),
        ("return f(a, key=b)", "return f(a)"),
    ],
)
def test_a_fault_changes_one_thing_when_code_has_a_place_for_it(body: str, wrong: str) -> None:
    head = "async def f(a, b):\n    "
    made = faulty(head + body)
    assert head + wrong in made
    for one in made:
        assert ast.dump(ast.parse(one)) != ast.dump(ast.parse(head + body))


@pytest.mark.parametrize(
    "text",
    [
        "def f(self):\n    pass",
        "def f(self) -> None:\n    return self.run()",
        "def f(self):\n    return None",
        "def f(self, a: Literal[1] = None):\n    self.x: Literal[2]",
        "def f(self):\n    self.f('é', None)",
        "def f(self):\n    x(f'{1}')",
        "def f(:",
    ],
)
def test_nothing_is_made_when_a_change_might_change_nothing(text: str) -> None:
    assert faulty(text) == set()


def test_comments_and_layout_stay_when_a_fault_is_put_in() -> None:
    text = source.dedented(code_bases.definitions()["later"].text)
    for made in faulty(text):
        old, new = text.split("\n"), made.split("\n")
        assert "    # The clock is not ours." in new
        assert sum(left != right for left, right in zip(old, new, strict=True)) == 1


def test_places_are_right_when_letters_take_several_bytes() -> None:
    assert "def f(a):\n    return 'äöü€', a[1]" in faulty("def f(a):\n    return 'äöü€', a[0]")


def test_the_same_fault_comes_when_the_seed_is_the_same() -> None:
    text = source.dedented(code_bases.definitions()["Halves.of"].text)
    assert faults.faulty(text, 5) == faults.faulty(text, 5)
    assert len(faulty(text)) > 5


@pytest.mark.parametrize(
    "body",
    [
        "if a < b:\n        a = b\n    return a",
        "if b >= a:\n        return a\n    return b",
        "if a > b:\n        return b\n    else:\n        return a",
        "return a if a <= b else b",
        "return [x if x > a else a for x in b]",
        "return a < 0.5 * b",
    ],
)
def test_an_order_stays_when_equal_values_give_the_same(body: str) -> None:
    head = "def f(a, b):\n    "
    made = faulty(head + body)
    assert made
    for one in made:
        assert _signs(one) == _signs(head + body)


@pytest.mark.parametrize(
    "body",
    ["if a < b:\n        a = b + 1\n    return a", "if a < b:\n        return a\n    return 0"],
)
def test_an_order_is_a_place_when_equal_values_tell(body: str) -> None:
    head = "def f(a, b):\n    "
    assert head + body.replace("<", "<=") in faulty(head + body)


def _signs(text: str) -> list[type[ast.cmpop]]:
    nodes = ast.walk(ast.parse(text))
    return [type(node.ops[0]) for node in nodes if isinstance(node, ast.Compare)]
