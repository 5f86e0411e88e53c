"""HTML as blocks of text: what a reader sees of a page, without menus, forms and scripts."""

from __future__ import annotations

from collections.abc import Iterator

from selectolax import lexbor

from services.distiller.documents import passages

_UNREAD = frozenset(
    "script style noscript template nav aside footer form button select svg iframe head".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CONTAINERS = frozenset(
    "body div section article main header blockquote figure figcaption details summary address "
    "center fieldset hgroup".split()
)
_BLOCKS = _CONTAINERS | _HEADINGS.keys() | frozenset("p ul ol dl table pre".split())
_DEEPEST = 200
"""Nested elements; what lies deeper is not read."""


def title(text: str) -> str:
    """What stands in `<title>`; empty without one."""
    node = lexbor.LexborHTMLParser(text).css_first("title")
    return "" if node is None else _joined(node.text())


def blocks(text: str) -> Iterator[passages.Block]:
    """The blocks of a page, in order; lines are those of blocks, counted from 1."""
    body = lexbor.LexborHTMLParser(text).body
    if body is None:
        return
    for number, (level, parts) in enumerate(_inside(body, 0), 1):
        if parts:
            yield passages.Block(tuple(parts), number, level)


def _inside(node: lexbor.LexborNode, depth: int) -> Iterator[tuple[int, list[passages.Part]]]:
    """Level and parts of the blocks inside a container; loose text between them is a paragraph."""
    loose: list[str] = []
    for child in node.iter(include_text=True):
        tag = child.tag or ""
        if not _is_read(child) or depth > _DEEPEST:
            continue
        if tag not in _BLOCKS:
            loose.append(_inline(child, depth))
            continue
        yield 0, _paragraph("".join(loose))
        loose = []
        if tag in _HEADINGS:
            yield _HEADINGS[tag], _paragraph(_inline(child, depth))
        elif tag in _CONTAINERS:
            yield from _inside(child, depth + 1)
        else:
            yield 0, list(_parts(child, depth))
    yield 0, _paragraph("".join(loose))


def _parts(node: lexbor.LexborNode, depth: int) -> Iterator[passages.Part]:
    match node.tag:
        case "ul" | "ol":
            for item in node.iter():
                for _, parts in _inside(item, depth + 1):
                    yield from parts
        case "dl":
            term = ""
            for item in node.iter():
                told = _joined(_inline(item, depth))
                if item.tag == "dt":
                    term = told
                elif told:
                    yield passages.Part(f"{term}: {told}" if term else told)
        case "table":
            yield from _rows(node, depth)
        case "pre":
            for line in node.text().splitlines():
                if line.strip():
                    yield passages.Part(line.strip(), whole=True)
        case _:
            yield from _paragraph(_inline(node, depth))


def _rows(table: lexbor.LexborNode, depth: int) -> Iterator[passages.Part]:
    header: list[str] = []
    for row in table.css("tr"):
        nodes = [cell for cell in row.iter() if cell.tag in ("td", "th")]
        cells = [_joined(_inline(cell, depth)) for cell in nodes]
        if not header and all(cell.tag == "th" for cell in nodes):
            header = cells
        elif told := passages.row(header or [""] * len(cells), cells):
            yield passages.Part(told, whole=True)


def _inline(node: lexbor.LexborNode, depth: int) -> str:
    """The text of a node; elements that stand apart are parted by a space."""
    if node.is_text_node:
        return node.text()
    if not _is_read(node) or depth > _DEEPEST:
        return ""
    inner = "".join(_inline(child, depth + 1) for child in node.iter(include_text=True))
    return f" {inner} " if node.tag == "br" or node.tag in _BLOCKS else inner


def _is_read(node: lexbor.LexborNode) -> bool:
    if not node.is_element_node:
        return bool(node.is_text_node)
    hidden = "hidden" in node.attributes or node.attributes.get("aria-hidden") == "true"
    return node.tag not in _UNREAD and not hidden


def _paragraph(text: str) -> list[passages.Part]:
    told = _joined(text)
    return [passages.Part(told)] if told else []


def _joined(text: str) -> str:
    return " ".join(text.split())
