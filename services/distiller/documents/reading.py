"""Reads documents into passages: sentences, list items, table rows and lines of code.

Knows the formats by the ends of their files' names; nothing about questions.
"""

from __future__ import annotations

import pathlib

import structlog

from services.distiller.documents import markdown, passages, pdf, web_page
from shared import errors

TEXT_SUFFIXES = (".md", ".txt", ".html", ".htm")
"""Documents that are text, and may be sent as such."""
SUFFIXES = (*TEXT_SUFFIXES, ".pdf")
LARGEST_DOCUMENT_BYTES = 2 * 1024 * 1024
LARGEST_PDF_BYTES = 32 * 1024 * 1024
"""Most of it is pictures and typefaces."""

Passage = passages.Passage
Document = passages.Document
sentences = passages.sentences

_log = structlog.get_logger(__name__)
_Signature = tuple[int, int]
"""Modification time in nanoseconds and size in bytes."""


def read(path: pathlib.Path) -> passages.Document:
    """Reads one document.

    Raises:
        errors.InvalidInputError: it is empty, too large, not UTF-8 text, or a PDF that can't be
            read.
    """
    is_pdf = path.suffix.lower() == ".pdf"
    most = LARGEST_PDF_BYTES if is_pdf else LARGEST_DOCUMENT_BYTES
    if path.stat().st_size > most:
        raise errors.InvalidInputError(f"document {path.name}: larger than {most} bytes; split it")
    if is_pdf:
        return pdf.read(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.InvalidInputError(f"document {path.name}: not UTF-8 text: {error}") from error
    return parse(path.name, text)


def parse(name: str, text: str) -> passages.Document:
    """Reads a document from its text, in the format that its name says.

    Raises:
        errors.InvalidInputError: it says nothing.
    """
    if pathlib.PurePath(name).suffix.lower() in (".html", ".htm"):
        return passages.document(name, web_page.blocks(text), web_page.title(text))
    return passages.document(name, markdown.blocks(text))


def read_folder(folder: pathlib.Path) -> list[passages.Document]:
    """All documents of a folder, see `FolderReader.read`."""
    return FolderReader(folder).read()


class FolderReader:
    """Reads a folder again and again; files that did not change are read once."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder."""
        self._folder = folder
        self._known: dict[pathlib.Path, tuple[_Signature, passages.Document | None]] = {}

    def read(self) -> list[passages.Document]:
        """All documents that hold anything, by name; those that can't be read are left out.

        Raises:
            errors.ConfigError: there is no such folder.
        """
        if not self._folder.is_dir():
            raise errors.ConfigError(
                f"distiller.knowledge_dir: there is no folder {self._folder}; create it or name "
                "another"
            )
        paths = sorted(
            path
            for path in self._folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        self._known = {path: self._read(path) for path in paths}
        return [document for _, document in self._known.values() if document is not None]

    def _read(self, path: pathlib.Path) -> tuple[_Signature, passages.Document | None]:
        stat = path.stat()
        signature = (stat.st_mtime_ns, stat.st_size)
        known = self._known.get(path)
        if known is not None and known[0] == signature:
            return known
        try:
            return signature, read(path)
        except errors.InvalidInputError as error:
            _log.warning("document left out", path=str(path), reason=str(error))
            return signature, None
