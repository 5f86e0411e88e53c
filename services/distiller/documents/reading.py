"""Reads documents into passages: sentences, list items, table rows and lines of code.

Knows nothing about questions. A passage carries the headings above it, so that a sentence that
says "it" can still be found by the name of what it speaks of.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import markdown_it
from markdown_it import tree

from shared import errors

SUFFIXES = (".md", ".txt")
LARGEST_DOCUMENT_BYTES = 2 * 1024 * 1024
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[`*]*[A-Z0-9`])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|No|Nos|vs|etc|approx|ca|cf|fig|e\.g|i\.e|[A-Z])\.)$"
)


@dataclasses.dataclass(frozen=True)
class Passage:
    """One statement of a document."""

    text: str
    headings: tuple[str, ...]
    """Title and headings above it, outermost first."""
    before: str
    """The passage before it in the same paragraph; empty at its beginning."""
    line: int
    """Line in the document where its block begins, from 1."""

    @property
    def in_context(self) -> str:
        """The passage with its headings in front: what is embedded."""
        return ". ".join((*dict.fromkeys(self.headings), self.text))


@dataclasses.dataclass(frozen=True)
class Document:
    """A document as a list of passages."""

    name: str
    title: str
    passages: tuple[Passage, ...]


def read(path: pathlib.Path) -> Document:
    """Reads one document.

    Raises:
        errors.InvalidInputError: it is empty, too large or not UTF-8 text.
    """
    if path.stat().st_size > LARGEST_DOCUMENT_BYTES:
        raise errors.InvalidInputError(
            f"document {path.name}: larger than {LARGEST_DOCUMENT_BYTES} bytes; split it"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.InvalidInputError(f"document {path.name}: not UTF-8 text: {error}") from error
    return parse(path.name, text)


def parse(name: str, text: str) -> Document:
    """Reads a document from its text.

    Raises:
        errors.InvalidInputError: it says nothing.
    """
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    root = tree.SyntaxTreeNode(parser.parse(text))
    passages, headings = list[Passage](), list[tuple[int, str]]()
    for block in root.children:
        if block.type == "heading":
            level = int(block.tag[1])
            headings = [pair for pair in headings if pair[0] < level]
            headings.append((level, _plain(block)))
            continue
        above = tuple(heading for _, heading in headings)
        line = block.map[0] + 1 if block.map else 1
        found = list(_passages(block, above, line))
        if passages and passages[-1].text.endswith(":") and passages[-1].headings == above:
            # "To begin, run:" says nothing without the line that follows it.
            opening = passages.pop()
            found = [
                dataclasses.replace(one, text=f"{opening.text} {one.text}", line=opening.line)
                for one in found
            ]
        passages.extend(found)
    if not passages:
        raise errors.InvalidInputError(f"document {name}: it holds no sentences to learn from")
    title = next((p.headings[0] for p in passages if p.headings), pathlib.Path(name).stem)
    return Document(name, title.replace("_", " "), tuple(passages))


def read_folder(folder: pathlib.Path) -> list[Document]:
    """All documents of a folder that hold anything, by name; empty ones are left out.

    Raises:
        errors.ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise errors.ConfigError(
            f"distiller.knowledge_dir: there is no folder {folder}; create it or name another"
        )
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            try:
                found.append(read(path))
            except errors.InvalidInputError:
                continue  # `AddDocument` refuses such files with the reason
    return found


def _passages(block: tree.SyntaxTreeNode, above: tuple[str, ...], line: int) -> Iterator[Passage]:
    if block.type in ("bullet_list", "ordered_list"):
        for item in block.children:
            for child in item.children:
                yield from _passages(child, above, line)
    elif block.type == "table":
        yield from _rows(block, above, line)
    elif block.type in ("fence", "code_block"):
        for text in block.content.splitlines():
            if text.strip():
                yield Passage(text.strip(), above, "", line)
    elif block.type == "blockquote":
        for child in block.children:
            yield from _passages(child, above, line)
    elif block.type == "paragraph":
        before = ""
        for sentence in sentences(_plain(block)):
            yield Passage(sentence, above, before, line)
            before = sentence


def _rows(table: tree.SyntaxTreeNode, above: tuple[str, ...], line: int) -> Iterator[Passage]:
    """A row reads `Setting interval, Meaning seconds between two syncs, Default 45`."""
    rows = [
        [_plain(cell) for cell in row.children]
        for section in table.children
        for row in section.children
    ]
    header, *body = rows
    for row in body:
        pairs = [(h, cell) for h, cell in zip(header, row, strict=False) if cell]
        text = ", ".join(f"{h}: {cell}" if h else cell for h, cell in pairs)
        if text:
            yield Passage(text, above, "", line)


def sentences(text: str) -> list[str]:
    """Splits a paragraph into sentences, minding the commonest abbreviations."""
    found: list[str] = []
    for part in _SENTENCE_END.split(text.strip()):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        elif part.strip():
            found.append(part.strip())
    return found


def _plain(node: tree.SyntaxTreeNode) -> str:
    """The text of a node without its marks."""
    pieces = [
        " " if inner.type in ("softbreak", "hardbreak") else inner.content
        for inner in node.walk()
        if inner.type in ("text", "code_inline", "softbreak", "hardbreak")
    ]
    return " ".join("".join(pieces).split())
