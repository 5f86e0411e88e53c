"""Files of languages other than Python: their definitions, imports and calls, with tree-sitter.

Unlike Python's parser, tree-sitter goes on after an error. A definition with an error in it is left
out; a file of which nothing else is left does not parse.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence

import tree_sitter

from services.distiller.codebase import chunks, definitions, languages, paths

_LONGEST_PARSE_S = 10.0
"""Recovering from errors may take far longer than reading what has none."""
_PIECE_BYTES = 1 << 16
_COMMENTS = frozenset({"comment", "line_comment", "block_comment"})
_BEFORE_DEFINITION = frozenset({"attribute_item", "decorator"})
_COMMENT_SIGNS = re.compile(r"^[ \t]*(?:///?!?|/\*+!?|\*+/|\*(?!/))[ \t]?|[ \t]*\*+/[ \t]*$", re.M)
_TEST_NAME = re.compile(r"^(?:Test|Benchmark|Fuzz)[A-Z_]|^test[A-Z_]")
_TEST_MARK = re.compile(r"#\[(?:\w+::)?test\b|@(?:Parameterized)?Test\b|#\[cfg\(test\)\]")
_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_FORMS = {
    "class": chunks.Form.CLASS,
    "function": chunks.Form.FUNCTION,
    "method": chunks.Form.METHOD,
    "case": chunks.Form.FUNCTION,
}
_KEYWORDS = frozenset("import from as use static package include require type".split())


@dataclasses.dataclass(slots=True)
class _Found:
    """A definition or a scope as the query gives it."""

    kind: str
    node: tree_sitter.Node
    name: str
    body: tree_sitter.Node | None
    receiver: str


def parse(path: str, text: str, language: languages.Language) -> definitions.ParsedFile:
    """What is defined, imported and called in a file.

    Raises:
        definitions.DoesNotParseError: nothing in it is of the language, or reading takes too long.
    """
    data = text.encode(errors="replace")
    tree = tree_of(data, language)
    root = tree.root_node
    if root.has_error and language.name == "c":  # A header may be of either language.
        other = tree_of(data, languages.CPP)
        if not other.root_node.has_error:
            language, tree, root = languages.CPP, other, other.root_node
    found, imports, calls = _matches(root, language)
    reader = _Reader(path, data, language)
    defined = reader.read_definitions(found)
    if root.has_error and not defined:
        raise definitions.DoesNotParseError("does not parse")
    return definitions.ParsedFile(
        path=path,
        language=language.name,
        lines=tuple(text.split("\n")),
        definitions=tuple(defined),
        imports=tuple(imports),
        calls=tuple(reader.read_calls(calls)),
        is_test=paths.is_test(path),
    )


def tree_of(data: bytes, language: languages.Language) -> tree_sitter.Tree:
    """The syntax tree of a text as UTF-8.

    Raises:
        definitions.DoesNotParseError: reading it takes too long.
    """
    until = time.monotonic() + _LONGEST_PARSE_S

    def piece(at: int, _: tree_sitter.Point) -> bytes:
        return data[at : at + _PIECE_BYTES]

    def is_late(_: int, __: bool) -> bool:
        return time.monotonic() > until

    try:
        return tree_sitter.Parser(languages.grammar(language)).parse(
            piece, encoding="utf8", progress_callback=is_late
        )
    except ValueError:
        raise definitions.DoesNotParseError("takes too long to parse") from None


def _matches(
    root: tree_sitter.Node, language: languages.Language
) -> tuple[list[_Found], list[definitions.Import], list[tuple[str, int, int]]]:
    """Definitions and scopes in their order, imports, and calls as name, byte and line."""
    found: list[_Found] = []
    imports: list[definitions.Import] = []
    calls: list[tuple[str, int, int]] = []
    for _, captured in tree_sitter.QueryCursor(languages.query(language)).matches(root):
        if "call" in captured:
            at = captured["callee"][0]
            calls.append((_text(at), at.start_byte, at.start_point.row + 1))
        elif "import" in captured:
            imports.extend(_imports(captured["import"][0]))
        else:
            kind = next(
                k for k in ("class", "function", "method", "scope", "case") if k in captured
            )
            receiver = _text(captured["receiver"][0]) if "receiver" in captured else ""
            body = captured["body"][0] if "body" in captured else None
            node = captured[kind][0]
            found.append(_Found(kind, node, _text(captured["name"][0]), body, receiver))
    found.sort(key=lambda one: (one.node.start_byte, -one.node.end_byte))
    return found, imports, calls


class _Reader:
    """Turns what a query found in one file into definitions."""

    def __init__(self, path: str, data: bytes, language: languages.Language) -> None:
        self._data = data
        self._language = language
        self._in_tests = paths.is_test(path)
        self._spans: list[tuple[int, int, str]] = []
        """Start, end and symbol of the outermost functions and of the methods, by start."""

    def read_definitions(self, found: Sequence[_Found]) -> list[definitions.Definition]:
        """Those that are not within functions, without errors; of one symbol the longest."""
        outer: list[tuple[int, str, bool]] = []
        by_symbol: dict[str, definitions.Definition] = {}
        for one in found:
            while outer and outer[-1][0] <= one.node.start_byte:
                outer.pop()
            if any(is_function for _, _, is_function in outer) and one.kind != "case":
                continue
            symbol = _symbol(one, [name for _, name, is_function in outer if not is_function])
            if one.kind == "case":
                symbol = self._case_name(one.node)
            else:
                is_function = one.kind in ("function", "method")
                name = symbol.rpartition(".")[2]
                outer.append((one.node.end_byte, name, is_function))
                if is_function:
                    self._spans.append((one.node.start_byte, one.node.end_byte, symbol))
            if one.kind == "scope" or one.node.has_error:
                continue
            if one.kind == "case" and not self._in_tests:
                continue
            definition = self._definition(one, symbol)
            known = by_symbol.get(symbol)
            if known is None or len(known.text) < len(definition.text):
                by_symbol[symbol] = definition
            if one.kind == "case":
                self._spans.append((one.node.start_byte, one.node.end_byte, symbol))
        self._spans.sort()
        return list(by_symbol.values())

    def read_calls(self, calls: Sequence[tuple[str, int, int]]) -> Iterator[definitions.Call]:
        """The calls with the definitions that they stand in."""
        starts = [start for start, _, _ in self._spans]
        for name, at, line in calls:
            index = bisect.bisect_right(starts, at) - 1
            inside = index >= 0 and at < self._spans[index][1]
            yield definitions.Call(name, line, self._spans[index][2] if inside else "")

    def _definition(self, one: _Found, symbol: str) -> definitions.Definition:
        node = one.node
        while node.parent is not None and node.parent.type in self._language.wrappers:
            node = node.parent
        before = _before(node)
        start = min([node.start_byte, *(n.start_byte for n in before if n.type not in _COMMENTS)])
        start = self._data.rfind(b"\n", 0, start) + 1 if self._only_blanks(start) else start
        text = self._data[start : node.end_byte].decode().rstrip()
        body_at = one.body.start_byte if one.body is not None else node.end_byte
        comments = [n for n in before if n.type in _COMMENTS]
        names = frozenset(_WORD.findall(text))
        form = _FORMS[one.kind]
        if form is chunks.Form.FUNCTION and "." in symbol:
            form = chunks.Form.METHOD
        head = self._data[start:body_at].decode()
        is_test = _TEST_MARK.search(head) is not None or self._in_tests
        return definitions.Definition(
            symbol=symbol,
            form=form,
            text=text,
            signature=head.rstrip(),
            docstring="\n".join(_plain(_text(n)) for n in comments).strip(),
            body=self._data[body_at : node.end_byte].decode().rstrip(),
            line=self._data.count(b"\n", 0, start) + 1,
            names=names,
            statements=_statements(one.body),
            is_test=is_test
            or symbol.startswith("tests.")
            or _TEST_NAME.match(one.name) is not None,
            is_trivial=one.body is None
            or not re.sub(r"[\s{};]", "", self._data[body_at : node.end_byte].decode()),
        )

    def _only_blanks(self, at: int) -> bool:
        line = self._data.rfind(b"\n", 0, at) + 1
        return not self._data[line:at].strip()

    def _case_name(self, node: tree_sitter.Node) -> str:
        arguments = node.child_by_field_name("arguments")
        first = arguments.named_children[0] if arguments and arguments.named_children else None
        told = _text(first).strip("\"'`") if first is not None else ""
        return f"test {told}"[:120]


def _before(node: tree_sitter.Node) -> list[tree_sitter.Node]:
    """The comments and attributes right above a definition, from the top."""
    found: list[tree_sitter.Node] = []
    at, row = node.prev_sibling, node.start_point.row
    while at is not None and at.type in _COMMENTS | _BEFORE_DEFINITION:
        # Some grammars count the newline to the comment: it ends where the next line begins.
        end = at.end_point.row - (1 if at.end_point.column == 0 else 0)
        if end < row - 1 or (at.type in _COMMENTS and end == row):
            break
        found.insert(0, at)
        row, at = at.start_point.row, at.prev_sibling
    return found


def _symbol(one: _Found, outer: Sequence[str]) -> str:
    name = one.name.replace("::", ".").replace("~", "")
    if one.receiver:
        return f"{one.receiver.lstrip('*').partition('[')[0]}.{name}"
    return ".".join([*outer, name])


def _statements(body: tree_sitter.Node | None) -> int:
    """Of a body with its nested blocks: nodes that stand in blocks on their own."""
    if body is None:
        return 0
    count, waiting = 0, [body]
    while waiting:
        node = waiting.pop()
        for child in node.named_children:
            if child.type in _COMMENTS:
                continue
            is_statement = child.type.endswith(("_statement", "_declaration", "_definition"))
            count += is_statement
            waiting.append(child)
    return max(count, body.named_child_count)


def _imports(node: tree_sitter.Node) -> Iterator[definitions.Import]:
    text = _text(node).strip()
    quoted = re.search(r"[\"'<]([^\"'>]+)[\"'>]", text)
    names = set(_WORD.findall(re.sub(r"[\"'<][^\"'>]*[\"'>]", " ", text))) - _KEYWORDS
    if quoted and not names:
        names = {re.split(r"[/.]", quoted[1].removesuffix(".h"))[-1]}
    if node.type == "import_declaration":  # Java: only the last name is bound.
        names = {_WORD.findall(text)[-1]}
    elif node.type == "import_spec":
        text = f"import {text}"
    for name in sorted(names):
        yield definitions.Import(name, quoted[1] if quoted else name, text)


def _plain(comment: str) -> str:
    """A comment without its signs."""
    return _COMMENT_SIGNS.sub("", comment).strip("\n")


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode(errors="replace")
