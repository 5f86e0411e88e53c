"""Markdown, and plain text as Markdown without marks, as blocks of text."""

from __future__ import annotations

from collections.abc import Iterator

import markdown_it
from markdown_it import tree

from services.distiller.documents import passages


def blocks(text: str) -> Iterator[passages.Block]:
    """The blocks of a text, in order."""
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    for node in tree.SyntaxTreeNode(parser.parse(text)).children:
        line = node.map[0] + 1 if node.map else 1
        if node.type == "heading":
            yield passages.Block((passages.Part(_plain(node)),), line, int(node.tag[1]))
        else:
            yield passages.Block(tuple(_parts(node)), line)


def _parts(node: tree.SyntaxTreeNode) -> Iterator[passages.Part]:
    if node.type in ("bullet_list", "ordered_list"):
        for item in node.children:
            for child in item.children:
                yield from _parts(child)
    elif node.type == "table":
        yield from _rows(node)
    elif node.type in ("fence", "code_block"):
        for text in node.content.splitlines():
            if text.strip():
                yield passages.Part(text.strip(), whole=True)
    elif node.type == "blockquote":
        for child in node.children:
            yield from _parts(child)
    elif node.type == "paragraph":
        yield passages.Part(_plain(node))


def _rows(table: tree.SyntaxTreeNode) -> Iterator[passages.Part]:
    header, *body = [
        [_plain(cell) for cell in row.children]
        for section in table.children
        for row in section.children
    ]
    for cells in body:
        if text := passages.row(header, cells):
            yield passages.Part(text, whole=True)


def _plain(node: tree.SyntaxTreeNode) -> str:
    """The text of a node without its marks."""
    pieces = [
        " " if inner.type in ("softbreak", "hardbreak") else inner.content
        for inner in node.walk()
        if inner.type in ("text", "code_inline", "softbreak", "hardbreak")
    ]
    return " ".join("".join(pieces).split())
