"""Python files: their definitions, imports and calls, read with `ast` and never executed."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence

from services.distiller.codebase import chunks, definitions, paths

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_UNKNOWN = "?"


def parse(path: str, text: str) -> definitions.ParsedFile:
    """What is defined, imported and called in a file.

    Raises:
        definitions.DoesNotParseError: it is no Python, or nested deeper than Python reads.
    """
    tree = tree_of(text)
    lines = tuple(text.split("\n"))
    is_test = paths.is_test(path)
    found: dict[str, definitions.Definition] = {}
    calls: list[definitions.Call] = []
    for node, symbol, container in _definitions(tree.body, ()):
        definition = _definition(node, symbol, container, lines, is_test)
        if definition is None:
            continue
        known = found.get(symbol)
        # A setter has the name of its getter, a fallback that of what it stands in for.
        if known is None or len(known.text) < len(definition.text):
            found[symbol] = definition
    calls.extend(_calls(tree))
    return definitions.ParsedFile(
        path=path,
        language="python",
        lines=lines,
        definitions=tuple(found.values()),
        imports=tuple(_imports(tree)),
        calls=tuple(calls),
        is_test=is_test,
    )


def tree_of(text: str) -> ast.Module:
    """The syntax tree of a Python file.

    Raises:
        definitions.DoesNotParseError: it is no Python, or nested deeper than Python reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of strange escapes: the file's business.
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise definitions.DoesNotParseError("does not parse") from error


def _definitions(
    body: Sequence[ast.stmt], outer: tuple[str, ...]
) -> Iterator[tuple[_Named, str, bool]]:
    """Definitions at the top of a file and in classes, with symbol and whether a class holds it."""
    waiting: list[tuple[ast.stmt, tuple[str, ...]]] = [(s, outer) for s in reversed(body)]
    while waiting:
        statement, names = waiting.pop()
        inner: list[ast.stmt] = []
        if isinstance(statement, _Named):
            here = (*names, statement.name)
            yield statement, ".".join(here), bool(names)
            if isinstance(statement, ast.ClassDef):
                inner, names = statement.body, here
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            inner = [
                part
                for field in ("body", "handlers", "orelse", "finalbody")
                for part in getattr(statement, field, ())
            ]
        elif isinstance(statement, ast.ExceptHandler):
            inner = statement.body
        waiting.extend((part, names) for part in reversed(inner))


def _definition(
    node: _Named, symbol: str, in_class: bool, lines: Sequence[str], in_tests: bool
) -> definitions.Definition | None:
    if any(_last_name(decorator) == "overload" for decorator in node.decorator_list):
        return None
    first = _first_line(node)
    end = node.end_lineno or node.lineno
    documented = ast.get_docstring(node)
    # An escape may stand for half a character, which no encoding can write.
    told = (documented or "").encode(errors="replace").decode()
    signature, rest_from = _signature(node, lines)
    rest = node.body[1:] if documented is not None else node.body
    if documented is not None:
        body = _after(node.body[0], lines, end)
    else:
        body = "\n".join(rest_from).rstrip()
    if isinstance(node, ast.ClassDef):
        form = chunks.Form.CLASS
    else:
        form = chunks.Form.METHOD if in_class else chunks.Form.FUNCTION
    return definitions.Definition(
        symbol=symbol,
        form=form,
        text="\n".join(lines[first - 1 : end]).rstrip(),
        signature=signature,
        docstring=told,
        body=body,
        line=first,
        names=_names([node]),
        statements=sum(isinstance(part, ast.stmt) for s in rest for part in ast.walk(s)),
        is_test=in_tests or node.name.startswith("test_"),
        is_trivial=_is_trivial(rest),
    )


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, _Named) else ()
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _signature(node: _Named, lines: Sequence[str]) -> tuple[str, list[str]]:
    """The head of a definition, and the lines after it."""
    first, end = _first_line(node), node.end_lineno or node.lineno
    begin = node.body[0]
    at = _first_line(begin)
    before = lines[at - 1].encode()[: begin.col_offset].decode() if at == begin.lineno else ""
    if before.strip():  # On one line, as in `def f(): return 1`.
        head = [*lines[first - 1 : at - 1], before]
        after = [lines[at - 1].encode()[begin.col_offset :].decode(), *lines[at:end]]
        return "\n".join(head).rstrip(), after
    head = list(lines[first - 1 : at - 1])
    comments: list[str] = []
    while head and (not head[-1].strip() or head[-1].lstrip().startswith("#")):
        comments.insert(0, head.pop())
    return "\n".join(head).rstrip(), [*comments, *lines[at - 1 : end]]


def _after(docstring: ast.stmt, lines: Sequence[str], end: int) -> str:
    """What stands between a docstring and the line `end`."""
    last = docstring.end_lineno or docstring.lineno
    beside = lines[last - 1].encode()[docstring.end_col_offset or 0 :].decode().lstrip("; \t")
    rest = list(lines[last:end])
    if beside and not beside.startswith("#"):
        rest.insert(0, beside)
    while rest and not rest[0].strip():
        rest.pop(0)
    return "\n".join(rest).rstrip()


def _is_trivial(rest: Sequence[ast.stmt]) -> bool:
    for statement in rest:
        constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if constant or isinstance(statement, ast.Pass):
            continue
        raised = statement.exc if isinstance(statement, ast.Raise) else None
        if _last_name(raised) == "NotImplementedError":
            continue
        return False
    return True


def _last_name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _names(nodes: Sequence[ast.AST]) -> frozenset[str]:
    found: set[str] = set()
    for node in (part for whole in nodes for part in ast.walk(whole)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found.add(name)
            case ast.keyword(arg=str(name)) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                found.update(part for alias in aliases for part in alias.name.split("."))
    return frozenset(found)


def _imports(tree: ast.Module) -> Iterator[definitions.Import]:
    """Of the file, not those within functions."""
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                renamed = f" as {alias.asname}" if alias.asname else ""
                name = alias.asname or alias.name.partition(".")[0]
                target = alias.name if alias.asname else name
                yield definitions.Import(name, target, f"import {alias.name}{renamed}")
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                renamed = f" as {alias.asname}" if alias.asname else ""
                target = f"{module}{'' if module.endswith('.') else '.'}{alias.name}"
                text = f"from {module} import {alias.name}{renamed}"
                yield definitions.Import(alias.asname or alias.name, target, text)
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            waiting.extend(
                part
                for field in ("body", "handlers", "orelse", "finalbody")
                for part in getattr(node, field, ())
            )


def _calls(tree: ast.Module) -> Iterator[definitions.Call]:
    """All calls, each with the definition that it stands in.

    A variable that is given an object of a class, or an argument annotated with one, stands for
    that class: `router.select` is `Router.select` after `router = Router()`.
    """
    waiting: list[tuple[ast.AST, str, dict[str, str], bool]] = [(tree, "", {}, True)]
    while waiting:
        node, caller, types, open_scope = waiting.pop()
        if isinstance(node, _Named) and open_scope:
            caller = f"{caller}.{node.name}" if caller else node.name
            open_scope = isinstance(node, ast.ClassDef)
            types = {} if isinstance(node, ast.ClassDef) else _types(node)
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            root, dot, rest = name.partition(".")
            if dot and root in types:
                name = f"{types[root]}.{rest}"
            if name != _UNKNOWN:
                yield definitions.Call(name, node.lineno, caller)
        children = list(ast.iter_child_nodes(node))
        waiting.extend((child, caller, types, open_scope) for child in reversed(children))


def _types(function: _Function) -> dict[str, str]:
    """The classes of a function's variables and arguments, as far as it says them plainly."""
    found: dict[str, str] = {}
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if isinstance(argument.annotation, ast.Name | ast.Attribute):
            found[argument.arg] = _dotted(argument.annotation)
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            name = _dotted(node.value.func)
            if name.rpartition(".")[2][:1].isupper():
                found |= {t.id: name for t in node.targets if isinstance(t, ast.Name)}
    return {name: told for name, told in found.items() if _UNKNOWN not in told}


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else _UNKNOWN)
    return ".".join(reversed(parts))
