"""A document as passages, and how blocks of text become passages; knows no file format.

A passage carries the headings above it, so that a sentence that says "it" can still be found by
the name of what it speaks of.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator

from shared import errors

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
    """Line in the document where its block begins, or its page in a PDF, from 1."""

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


@dataclasses.dataclass(frozen=True)
class Part:
    """A paragraph, a list item, a table row or a line of code."""

    text: str
    whole: bool = False
    """It is one passage, not several sentences."""


@dataclasses.dataclass(frozen=True)
class Block:
    """What a reader of a format finds between two blank lines."""

    parts: tuple[Part, ...]
    line: int
    level: int = 0
    """Of a heading, from 1; 0: no heading."""


def document(name: str, blocks: Iterable[Block], title: str = "") -> Document:
    """Makes passages of blocks.

    Args:
        name: the file's name.
        blocks: in reading order.
        title: where no heading stands above the passages; empty: the file's name without suffix.

    Raises:
        errors.InvalidInputError: it says nothing.
    """
    found, headings = list[Passage](), list[tuple[int, str]]()
    for block in blocks:
        if block.level:
            headings = [pair for pair in headings if pair[0] < block.level]
            headings.append((block.level, " ".join(part.text for part in block.parts)))
            continue
        above = tuple(heading for _, heading in headings)
        new = list(_passages(block, above))
        if new and found and found[-1].text.endswith(":") and found[-1].headings == above:
            # "To begin, run:" says nothing without the line that follows it.
            opening = found.pop()
            new = [
                dataclasses.replace(one, text=f"{opening.text} {one.text}", line=opening.line)
                for one in new
            ]
        found.extend(new)
    if not found:
        raise errors.InvalidInputError(f"document {name}: it holds no sentences to learn from")
    heading = next((passage.headings[0] for passage in found if passage.headings), "")
    named = heading or title or pathlib.Path(name).stem
    return Document(name, named.replace("_", " "), tuple(found))


def sentences(text: str) -> list[str]:
    """Splits a paragraph into sentences, minding the commonest abbreviations."""
    found: list[str] = []
    for part in _SENTENCE_END.split(text.strip()):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        elif part.strip():
            found.append(part.strip())
    return found


def _passages(block: Block, above: tuple[str, ...]) -> Iterator[Passage]:
    for part in block.parts:
        if part.whole:
            yield Passage(part.text, above, "", block.line)
            continue
        before = ""
        for sentence in sentences(part.text):
            yield Passage(sentence, above, before, block.line)
            before = sentence


def row(header: list[str], cells: list[str]) -> str:
    """A table row reads `Setting: interval, Meaning: seconds between two syncs, Default: 45`."""
    pairs = [(head, cell) for head, cell in zip(header, cells, strict=False) if cell]
    return ", ".join(f"{head}: {cell}" if head else cell for head, cell in pairs)
