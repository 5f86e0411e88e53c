"""Puts one fault into a Python definition, as people make them, and leaves all else as it stands.

Each is an edit of the text at a place that the syntax tree names, so that comments and layout stay.
What could change nothing is left alone as far as that can be told: annotations, defaults repeated
in a call, a `return` whose value is None, `<` for `<=` where both give the same.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from services.distiller.codebase.lessons import source

_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_SIGNS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: r"is\s+not", ast.In: "in", ast.NotIn: r"not\s+in",
    ast.And: "and", ast.Or: "or", ast.Add: r"\+", ast.Sub: "-", ast.Mult: r"\*", ast.Div: "/",
}  # fmt: skip
"""How an operator is written, as a pattern."""
_OPERATORS = {ast.And: "or", ast.Or: "and", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}
_LARGEST_INDEX = 64
"""Larger numbers are sizes and codes rather than places."""
_NO_NAMES = frozenset({"self", "cls", "_"})


@dataclasses.dataclass(frozen=True)
class Fault:
    """One edit of a text."""

    kind: str
    start: int
    """In bytes of UTF-8, as the syntax tree counts."""
    end: int
    new: str


def faulty(text: str, seed: int) -> str | None:
    """A definition with a fault put in; nothing where none can be.

    Args:
        text: of Python, out of its indentation.
        seed: chooses among all faults that fit: first the kind, then the place.

    Returns:
        Text that parses, and not to the same tree.
    """
    tree = source.tree(text)
    if tree is None:
        return None
    by_kind: dict[str, list[Fault]] = {}
    for fault in _Finder(text).of(tree):
        by_kind.setdefault(fault.kind, []).append(fault)
    kinds = sorted(by_kind)
    told = ast.dump(tree)
    for turn in range(len(kinds)):
        faults = by_kind[kinds[(seed + turn) % len(kinds)]]
        first = seed // 7919 % len(faults)
        for fault in (*faults[first:], *faults[:first]):
            made = _edited(text, fault)
            parsed = source.tree(made)
            if parsed is not None and ast.dump(parsed) != told:
                return made
    return None


def _edited(text: str, fault: Fault) -> str:
    data = text.encode()
    return (data[: fault.start] + fault.new.encode() + data[fault.end :]).decode()


class _Finder:
    """Finds the places of one text."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()
        starts = [0]
        for line in self._data.split(b"\n"):
            starts.append(starts[-1] + len(line) + 1)
        self._starts = starts
        self._unordered: frozenset[ast.AST] = frozenset()

    def of(self, tree: ast.Module) -> Iterator[Fault]:
        self._unordered = frozenset(_alike_when_equal(tree))
        for node in tree.body:
            yield from self._within(node, frozenset(), returns=True)

    def _within(self, node: ast.AST, names: frozenset[str], returns: bool) -> Iterator[Fault]:
        """Faults at a node and below.

        Args:
            node: any but annotations, decorators and what stands in an f-string, whose places
                Python 3.11 does not tell.
            names: variables of the function around it.
            returns: whether the function around it gives anything back.
        """
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names, returns = _variables(node), _gives_back(node)
            below: list[ast.AST] = list(node.body)
        elif isinstance(node, ast.ClassDef):
            below = list(node.body)
        elif isinstance(node, ast.AnnAssign):
            below = [node.value] if node.value is not None else []
        else:
            yield from self._at(node, names, returns)
            below = list(ast.iter_child_nodes(node))
        for child in below:
            yield from self._within(child, names, returns)

    def _at(self, node: ast.AST, names: frozenset[str], returns: bool) -> Iterator[Fault]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            if node in self._unordered:
                return
            op = type(node.ops[0])
            yield from self._sign(
                "comparison", node.left, node.comparators[0], op, _COMPARISONS[op]
            )
        elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
            op_ = type(node.op)
            left, right = node.values
            yield from self._sign("operator", left, right, op_, _OPERATORS[op_])
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            if not _is_text(node.left) and not _is_text(node.right):
                kind = type(node.op)
                yield from self._sign("operator", node.left, node.right, kind, _OPERATORS[kind])
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            if 0 <= node.value <= _LARGEST_INDEX:
                yield self._replaced("off by one", node, str(node.value + 1))
        elif isinstance(node, ast.Return) and returns and not _is_nothing(node.value):
            assert node.value is not None
            yield self._until("return", node, node.value)
        elif isinstance(node, ast.Await):
            yield self._until("await", node, node.value)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            for other in sorted(names - {node.id}):
                yield self._replaced("variable", node, other)
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            yield self._inverted(node.test)
        elif isinstance(node, ast.Call):
            yield from self._fewer_arguments(node)

    def _sign(
        self, kind: str, left: ast.expr, right: ast.expr, op: type[ast.AST], new: str
    ) -> Iterator[Fault]:
        start, end = self._end(left), self._start(right)
        found = re.search(_SIGNS[op], self._data[start:end].decode())
        # A comment between the two may hold the sign as well.
        if found is not None and b"#" not in self._data[start:end]:
            yield Fault(kind, start + found.start(), start + found.end(), new)

    def _replaced(self, kind: str, node: ast.expr, new: str) -> Fault:
        return Fault(kind, self._start(node), self._end(node), new)

    def _until(self, kind: str, node: ast.stmt | ast.expr, value: ast.expr) -> Fault:
        """Takes out what stands before the value."""
        word = len(kind)
        start = self._start(node)
        gap = len(self._data[start + word :]) - len(self._data[start + word :].lstrip(b" "))
        return Fault(kind, start, start + word + gap, "")

    def _inverted(self, test: ast.expr) -> Fault:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return Fault("condition", self._start(test), self._start(test.operand), "")
        start, end = self._start(test), self._end(test)
        told = self._data[start:end].decode()
        simple = isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
        return Fault("condition", start, end, f"not {told}" if simple else f"not ({told})")

    def _fewer_arguments(self, node: ast.Call) -> Iterator[Fault]:
        """Leaves out the last argument of several, unless it may be the default."""
        given: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
        given.sort(key=self._start)
        if len(given) < 2:
            return
        last = given[-1]
        value = last.value if isinstance(last, ast.keyword) else last
        if isinstance(value, ast.Constant | ast.Starred | ast.GeneratorExp):
            return
        if isinstance(last, ast.keyword) and last.arg is None:
            return
        yield Fault("argument", self._end(given[-2]), self._end(last), "")

    def _start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset


def _alike_when_equal(tree: ast.Module) -> Iterator[ast.Compare]:
    """Orders of two values that decide nothing where both are equal, or that never are equal.

    The greater of two, `if a < b: a = b`, is the same with `<=`; so is what fractions are held to.
    """
    for node in ast.walk(tree):
        if _is_order(node):
            sides = (part for side in (node.left, *node.comparators) for part in ast.walk(side))
            if any(isinstance(s, ast.Constant) and isinstance(s.value, float) for s in sides):
                yield node
        elif (
            isinstance(node, ast.IfExp)
            and _is_order(node.test)
            and _pair(node.body, node.orelse) == _sides(node.test)
        ):
            yield node.test
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, ())
            for at, statement in enumerate(block if isinstance(block, list) else ()):
                if isinstance(statement, ast.If) and _is_order(statement.test):
                    rest = statement.orelse or block[at + 1 :]
                    if _chosen(statement, rest) == _sides(statement.test):
                        yield statement.test


def _is_order(node: ast.AST) -> TypeGuard[ast.Compare]:
    return (
        isinstance(node, ast.Compare)
        and len(node.ops) == 1
        and isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    )


def _chosen(statement: ast.If, rest: Sequence[ast.stmt]) -> frozenset[str] | None:
    """The two values between which a statement chooses, or what it gives the value of what."""
    if len(statement.body) != 1:
        return None
    match statement.body[0]:
        case ast.Assign(targets=[target], value=value) if not statement.orelse:
            return _pair(target, value)
        case ast.Return(value=ast.expr() as value):
            other = rest[0].value if rest and isinstance(rest[0], ast.Return) else None
            return _pair(value, other) if other is not None else None
    return None


def _sides(node: ast.Compare) -> frozenset[str]:
    return _pair(node.left, node.comparators[0])


def _pair(one: ast.expr, other: ast.expr) -> frozenset[str]:
    return frozenset((ast.unparse(one), ast.unparse(other)))


def _variables(node: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """Parameters, and what the function's own statements assign."""
    told = node.args
    given = {one.arg for one in (*told.posonlyargs, *told.args, *told.kwonlyargs)}
    made = {
        target.id
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    return frozenset((given | made) - _NO_NAMES)


def _gives_back(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    told = node.returns
    return not (isinstance(told, ast.Constant) and told.value is None)


def _is_nothing(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _is_text(value: ast.expr) -> bool:
    """Text is only added: another sign there is a fault that any reader sees."""
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str | bytes)
    )
