"""Definitions of other languages: their parts, symbols, documentation, imports and calls."""

from __future__ import annotations

import pytest

from services.distiller.codebase import definitions, languages, tree_source

_JS = """import {x, y} from "./z";
/**
 * Adds.
 * @param a one
 */
export function add(a, b) {
  return x(a) + b;
}

// Greets.
export class Greeter {
  hello(name) { return add(name, 1); }
}
const later = async (q) => { await y(q); return new Greeter().hello(q); };
"""
_TS = """import {add} from "./a";
describe("sums", () => {
  it("adds two", () => { expect(add(1, 2)).toBe(3); });
});
"""
_GO = """package a

import (
	"fmt"
	s "strings"
)

// Add adds.
// And says so.
func Add(a, b int) int { fmt.Println(a); return a + b }

type R[T any] struct { a int }

func (r *R[T]) Sel(x int) int { return Add(x, r.a) }
"""
_RUST = """use std::io;

/// Adds.
#[inline]
pub fn add(a: i32) -> i32 { a + 1 }
struct R { a: i32 }
impl R {
    /// Selects.
    pub fn sel(&self) -> i32 { add(self.a) }
}
#[cfg(test)]
mod tests {
    #[test]
    fn adds() { assert_eq!(1 + 1, 2); let q = add(3); }
}
"""
_JAVA = """package a;
import java.util.List;
/** A thing. */
public class A {
  /** Sums. */
  @Override public int sum(List<Integer> x) { return helper(x) + new B(3).go(); }
}
"""
_C = """#include <stdio.h>
/* Adds. */
static int add(int a, int b) { printf("%d", a); return a + b; }
char *name(void) { return "x"; }
struct point { int a; };
"""
_CPP = """#include "r.h"
namespace n {
template <typename T>
class V {
 public:
  // Of it.
  int size() const { return n_; }
};
int R::sel(int x) { return add(x); }
}
"""


def _parsed(path: str, text: str) -> definitions.ParsedFile:
    language = languages.of_path(path)
    assert language is not None
    return tree_source.parse(path, text, language)


@pytest.mark.parametrize(
    ("path", "text", "symbols"),
    [
        ("a.js", _JS, ["add", "Greeter", "Greeter.hello", "later"]),
        ("a.test.ts", _TS, ["test adds two"]),
        ("a.tsx", "const A = () => { return <b>x</b>; };", ["A"]),
        ("a.go", _GO, ["Add", "R", "R.Sel"]),
        ("a.rs", _RUST, ["add", "R", "R.sel", "adds"]),
        ("A.java", _JAVA, ["A", "A.sum"]),
        ("a.c", _C, ["add", "name", "point"]),
        ("a.cpp", _CPP, ["V", "V.size", "R.sel"]),
        ("a.h", "class A { public: int f() { return 1; } };", ["A", "A.f"]),
    ],
)
def test_definitions_are_found_with_their_symbols(path, text, symbols):
    found = _parsed(path, text)
    assert [one.symbol for one in found.definitions] == symbols
    for one in found.definitions:
        assert one.text in text
        assert one.text.startswith(one.signature)
        assert one.text.endswith(one.body.rstrip("}; \n") + one.text[-1]) or one.body in one.text


@pytest.mark.parametrize(
    ("path", "text", "symbol", "documented", "signature"),
    [
        ("a.js", _JS, "add", "Adds.\n@param a one", "export function add(a, b)"),
        ("a.js", _JS, "Greeter", "Greets.", "export class Greeter"),
        ("a.go", _GO, "Add", "Add adds.\nAnd says so.", "func Add(a, b int) int"),
        ("a.rs", _RUST, "add", "Adds.", "#[inline]\npub fn add(a: i32) -> i32"),
        ("a.rs", _RUST, "R.sel", "Selects.", "    pub fn sel(&self) -> i32"),
        ("A.java", _JAVA, "A.sum", "Sums.", "  @Override public int sum(List<Integer> x)"),
        ("a.c", _C, "add", "Adds.", "static int add(int a, int b)"),
        ("a.cpp", _CPP, "V.size", "Of it.", "  int size() const"),
        ("a.cpp", _CPP, "V", "", "template <typename T>\nclass V"),
    ],
)
def test_comment_above_documents_and_head_ends_where_the_body_begins(
    path, text, symbol, documented, signature
):
    found = {one.symbol: one for one in _parsed(path, text).definitions}[symbol]
    assert (found.docstring, found.signature) == (documented, signature)


@pytest.mark.parametrize(
    ("path", "text", "call", "caller"),
    [
        ("a.js", _JS, "Greeter", "later"),
        ("a.js", _JS, "add", "Greeter.hello"),
        ("a.test.ts", _TS, "add", "test adds two"),
        ("a.go", _GO, "Add", "R.Sel"),
        ("a.rs", _RUST, "add", "R.sel"),
        ("A.java", _JAVA, "helper", "A.sum"),
        ("a.cpp", _CPP, "add", "R.sel"),
    ],
)
def test_calls_are_told_with_the_definition_they_stand_in(path, text, call, caller):
    assert (call, caller) in {(one.name, one.caller) for one in _parsed(path, text).calls}


@pytest.mark.parametrize(
    ("path", "text", "imported"),
    [
        ("a.js", _JS, ("x", 'import {x, y} from "./z";')),
        ("a.go", _GO, ("s", 'import s "strings"')),
        ("a.rs", _RUST, ("io", "use std::io;")),
        ("A.java", _JAVA, ("List", "import java.util.List;")),
        ("a.c", _C, ("stdio", "#include <stdio.h>")),
    ],
)
def test_imports_are_told(path, text, imported):
    assert imported in {(one.name, one.text) for one in _parsed(path, text).imports}


def test_tests_are_told_from_other_code():
    tests = {one.symbol for one in _parsed("a.rs", _RUST).definitions if one.is_test}
    assert tests == {"adds"}
    assert all(one.is_test for one in _parsed("a_test.go", _GO).definitions)


def test_definition_with_an_error_is_left_out_and_the_others_stay():
    found = _parsed("a.js", "function good() { return 1; }\nfunction bad() { return ((; }\n")
    assert [one.symbol for one in found.definitions] == ["good"]


@pytest.mark.parametrize("path", ["a.js", "a.go", "a.rs", "A.java", "a.c", "a.cpp"])
def test_text_of_another_kind_does_not_parse(path):
    with pytest.raises(definitions.DoesNotParseError):
        _parsed(path, "Dear all, ( this is } a letter; and [ no program (((.")


def test_parsing_ends_when_it_takes_too_long(monkeypatch):
    monkeypatch.setattr(tree_source, "_LONGEST_PARSE_S", 0.0)
    with pytest.raises(definitions.DoesNotParseError, match="too long"):
        _parsed("a.go", "package a\n" + "func f() { g(1 + 2) }\n" * 2_000)
