"""PDF as blocks of text: the text that a file carries, page by page.

Headings and paragraphs are told by how lines end, since a PDF says nothing about them. Pictures
of pages hold no text here: they need a program that recognises it first.
"""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Iterator

import pypdf
import pypdf.errors

from services.distiller.documents import passages
from shared import errors

MOST_PAGES = 1000
_LONGEST_HEADING = 70
_LEAST_CHARACTERS_A_PAGE = 20
"""A file with fewer on average, in which there are pictures, was scanned."""
_SHORT_LINE = 0.75
"""A line that ends a sentence ends its paragraph where it is shorter than this share of others."""
_ENDS_SENTENCE = re.compile(r"[.!?:][\"'”’)\]]*$")


def read(path: pathlib.Path) -> passages.Document:
    """Reads a file.

    Raises:
        errors.InvalidInputError: it is encrypted, scanned, too long or damaged, or it says
            nothing.
    """
    # It warns of every oddity that it mends.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        pages, title, pictures = _pages(path)
    except errors.InvalidInputError:
        raise
    except pypdf.errors.FileNotDecryptedError as error:
        raise _encrypted(path) from error
    except Exception as error:  # Damaged files fail inside pypdf in many ways.
        raise errors.InvalidInputError(
            f"document {path.name}: this PDF is damaged ({type(error).__name__}: {error}); save "
            "it anew with the program that made it"
        ) from error
    if sum(map(len, pages)) < _LEAST_CHARACTERS_A_PAGE * len(pages) and pictures:
        raise errors.InvalidInputError(
            f"document {path.name}: this PDF holds pictures of its pages and no text; run a text "
            "recognition over it first, such as ocrmypdf"
        )
    return passages.document(path.name, _blocks(pages), title)


def _pages(path: pathlib.Path) -> tuple[list[str], str, bool]:
    """The text of each page, the title, and whether there are pictures."""
    reader = pypdf.PdfReader(path)
    # Many files are encrypted with no password, only to forbid printing.
    if reader.is_encrypted and not reader.decrypt(""):
        raise _encrypted(path)
    if len(reader.pages) > MOST_PAGES:
        raise errors.InvalidInputError(
            f"document {path.name}: {len(reader.pages)} pages; at most {MOST_PAGES}, split it"
        )
    title = (reader.metadata.title if reader.metadata else "") or ""
    pages = [page.extract_text() for page in reader.pages]
    pictures = any(map(_has_picture, reader.pages))
    return pages, " ".join(title.split()), pictures


def _has_picture(page: pypdf.PageObject) -> bool:
    resources = page.get("/Resources")
    drawn = resources.get_object().get("/XObject") if resources is not None else None
    objects = drawn.get_object().values() if drawn is not None else ()
    return any(one.get_object().get("/Subtype") == "/Image" for one in objects)


def _encrypted(path: pathlib.Path) -> errors.InvalidInputError:
    return errors.InvalidInputError(
        f"document {path.name}: this PDF is encrypted with a password; save a copy without one"
    )


def _blocks(pages: list[str]) -> Iterator[passages.Block]:
    """Headings and paragraphs; a paragraph ends with its page."""
    for number, page in enumerate(pages, 1):
        lines = [" ".join(line.split()) for line in page.splitlines()]
        width = max(map(len, lines), default=0)
        told: list[str] = []
        for at, line in enumerate(lines):
            if not told and _is_heading(line, lines[at + 1 :]):
                level = 1 if number == 1 and not any(lines[:at]) else 2
                yield passages.Block((passages.Part(line),), number, level)
                continue
            told.append(line)
            short = len(line) < _SHORT_LINE * width
            if not line or (short and _ENDS_SENTENCE.search(line)):
                yield _paragraph(told, number)
                told = []
        yield _paragraph(told, number)


def _is_heading(line: str, after: list[str]) -> bool:
    following = next((text for text in after if text), "")
    return (
        bool(line)
        and len(line) <= _LONGEST_HEADING
        and not _ENDS_SENTENCE.search(line)
        and (line[:1].isupper() or line[:1].isdigit())
        and following[:1].isupper()
        and len(following) > len(line)
    )


def _paragraph(lines: list[str], page: int) -> passages.Block:
    text = re.sub(r"(?<=[a-z])- (?=[a-z])", "", " ".join(line for line in lines if line))
    return passages.Block((passages.Part(text),) if text else (), page)
