"""A repository becomes chunks with what stands around them, the most useful first."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.codebase import synthetic
from services.distiller.codebase import (
    chunks,
    definitions,
    duplicates,
    extraction,
    repository,
    usefulness,
)
from shared import codebase_settings
from tests.unit.distiller.codebase import made

_FILES = {
    "pkg/__init__.py": "from pkg.maths import area\n",
    "pkg/maths.py": (
        "import json\nimport math\n\n\n"
        "def area(radius: float) -> float:\n"
        '    """Area of a circle, in the square of the unit of its radius; never negative."""\n'
        "    if radius < 0:\n        raise ValueError(radius)\n"
        "    whole = math.pi * radius**2\n    return whole\n\n\n"
        "class Shape:\n    def __init__(self, radius):\n        self.radius = radius\n"
        "        self.known = {}\n\n"
        "    def measure(self):\n        self.known[self.radius] = area(self.radius)\n"
        "        return self.known\n\n"
        "    def nothing(self):\n        pass\n"
    ),
    "pkg/shop.py": (
        "import pkg\nfrom . import maths as m\nfrom .maths import Shape as S\n\n\n"
        "def price(radius):\n    paid = pkg.area(radius) * 3\n    return paid\n\n\n"
        "def cost(radius):\n    shape = S(radius)\n    return shape.measure(), m.area(1)\n"
    ),
    "tests/test_maths.py": (
        "from pkg import area, maths\n\n\n"
        "def test_area_is_right():\n    assert round(area(1), 2) == 3.14\n\n\n"
        "class TestShape:\n    def test_measures(self):\n"
        "        assert maths.Shape(2).measure() == area(2) == maths.area(2)\n"
    ),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return made.extract(tmp_path_factory.mktemp("repo"), _FILES)


def _chunk(found: extraction.Extraction, symbol: str) -> chunks.Chunk:
    return next(chunk for chunk in found.chunks if chunk.symbol == symbol)


def test_calls_are_found_through_imports_and_re_exports(found):
    sites = _chunk(found, "area").call_sites
    assert "paid = pkg.area(radius) * 3" in sites[0]
    assert any("m.area(1)" in site for site in sites)
    assert any("area(self.radius)" in site for site in sites)
    assert not any("assert" in site for site in sites)


def test_class_and_method_are_found_through_a_variable(found):
    assert "shape = S(radius)" in _chunk(found, "Shape").call_sites[0]
    assert "shape.measure()" in _chunk(found, "Shape.measure").call_sites[0]


def test_tests_that_use_a_symbol_come_with_it_and_the_plainest_first(found):
    told = _chunk(found, "area").tests
    assert told[0].startswith("def test_area_is_right():")
    assert len(told) == 2
    assert _chunk(found, "price").tests == ()


def test_only_the_imports_that_a_chunk_uses_come_with_it(found):
    assert _chunk(found, "area").imports == ("import math",)
    assert _chunk(found, "cost").imports == (
        "from . import maths as m",
        "from .maths import Shape as S",
    )


def test_used_tested_and_documented_code_comes_first_and_tests_last(found):
    assert found.chunks[0].symbol == "area"
    assert found.chunks[-1].path.startswith("tests/")
    worth = [chunk.usefulness for chunk in found.chunks]
    assert worth == sorted(worth, reverse=True)


def test_summary_counts_what_was_read(found):
    assert (found.files, found.trivial, found.skipped, found.removed) == (4, 1, (), ())
    assert found.lines == sum(text.count("\n") + 1 for text in _FILES.values())
    assert len(found.commit) == 40
    assert "Shape.nothing" not in {chunk.symbol for chunk in found.chunks}


def test_library_methods_are_not_taken_for_the_only_method_of_their_name(tmp_path):
    files = {
        "a.py": "class Box:\n    def append(self, x):\n        self.x = x\n        return x\n\n"
        "    def weigh(self, scale):\n        return scale.put(self.x, times=3) / 3 - 1\n",
        "b.py": "def f(items):\n    items.append(1)\n    return items\n",
    }
    assert _chunk(made.extract(tmp_path, files), "Box.append").call_sites == ()


def test_progress_counts_every_file(tmp_path):
    repo = made.repo(tmp_path, {"a.py": "x = 1\n", "b.md": "", "c.bin": b"\0"})
    told: list[tuple[int, int]] = []
    extraction.extract(repo, codebase_settings.Codebase(), lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_same_repository_gives_the_same_chunks(tmp_path):
    synthetic.make(tmp_path, 5_000, seed=3)
    repo = repository.Repository.open(tmp_path)
    once, again = (extraction.extract(repo, codebase_settings.Codebase()) for _ in range(2))
    assert once == again
    assert {chunk.language for chunk in once.chunks} == {
        "python", "typescript", "go", "rust", "java", "c",
    }  # fmt: skip
    assert once.skipped == ()
    assert len({(chunk.path, chunk.symbol) for chunk in once.chunks}) == len(once.chunks)


def test_more_useful_of_two_near_duplicates_is_kept(tmp_path):
    body = "".join(f"    step_{n} = source.read({n}) + {n}\n" for n in range(12))
    files = {
        "a.py": f"def first(source):\n{body}    return step_3\n",
        "b.py": f'def first(source):\n    """Reads it step by step."""\n{body}    return step_3\n',
        "c.py": "def other(a, b):\n    total = a * 3 - b\n    return total // 7\n",
    }
    found = made.extract(tmp_path, files)
    assert [chunk.path for chunk in found.chunks] == ["b.py", "c.py"]
    assert found.duplicates == 1


def test_texts_that_share_little_are_all_kept():
    texts = [f"def f_{n}(a):\n    return a.load({n}, {n * 7}, {n * 13})" for n in range(50)]
    assert duplicates.keep_first([*texts, *texts]) == list(range(50))


def _definition(**changed: object) -> definitions.Definition:
    plain = definitions.Definition(
        symbol="f", form=chunks.Form.FUNCTION, text="", signature="", docstring="", body="",
        line=1, names=frozenset(), statements=8, is_test=False, is_trivial=False,
    )  # fmt: skip
    return dataclasses.replace(plain, **changed)


def test_usefulness_is_the_formula_s():
    assert usefulness.usefulness(_definition(), 0, 0, False) == pytest.approx(0.2)
    full = _definition(docstring="x" * 60)
    assert usefulness.usefulness(full, 9, 2, True) == pytest.approx(0.2 + 1 + 1 + 1.2 + 0.2)
    short = _definition(statements=1)
    assert usefulness.usefulness(short, 0, 0, False) == pytest.approx(0.2 * 0.1674, rel=1e-3)


@pytest.mark.parametrize(
    "worse",
    [{"is_test": True}, {"statements": 1}, {"statements": 300}, {"symbol": "A.__repr__"}],
)
def test_tests_getters_giants_and_special_methods_count_less(worse):
    of = usefulness.usefulness
    assert of(_definition(**worse), 3, 1, True) < 0.6 * of(_definition(), 3, 1, True)
