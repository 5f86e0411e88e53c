"""The knowledge folder: where users put the documents that the `documents` teacher reads."""

from __future__ import annotations

import hashlib
import pathlib
import re
import tempfile

from services.distiller.documents import pdf, reading
from shared import atomic, errors
from shared import settings as config
from shared.rpc import client

SUFFIXES = reading.TEXT_SUFFIXES
"""Of documents that are sent as text."""
PDF = ".pdf"
LARGEST_BYTES = 2 * 1024 * 1024
_LONGEST_NAME_BYTES = 200
# A plain file name: no folders, no hidden files, no control characters, nothing that Windows
# or a shell would take for something else.
_NAME = re.compile(r"[^\W_][\w .,()+&'-]*", re.UNICODE)


class KnowledgeFolder:
    """Documents by file name."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, which exists."""
        self._folder = folder

    def add(self, name: str, text: str) -> str:
        """Puts a document into the folder; one of the same name is replaced.

        Returns:
            SHA-256 of the document in lower-case hex.

        Raises:
            errors.InvalidInputError: the name or the text is not acceptable.
        """
        _check_name(name, SUFFIXES)
        return self._put(name, _checked_text(name, text))

    def add_pdf(self, name: str, data: bytes) -> str:
        """Puts a PDF into the folder; one of the same name is replaced. It is read first.

        Returns:
            SHA-256 of the document in lower-case hex.

        Raises:
            errors.InvalidInputError: the name is not acceptable, or the file is too large or has
                no text that can be read.
        """
        _check_name(name, (PDF,))
        if len(data) > client.LARGEST_FILE_BYTES:
            raise errors.InvalidInputError(
                f"document {name} has {len(data):,} bytes; at most {client.LARGEST_FILE_BYTES:,} "
                f"are sent: put it into the knowledge folder by hand, {self._folder.absolute()}"
            )
        with tempfile.TemporaryDirectory() as aside:
            path = pathlib.Path(aside) / name
            path.write_bytes(data)
            pdf.read(path)
        return self._put(name, data)

    def _put(self, name: str, data: bytes) -> str:
        atomic.write(self._folder / name, data)
        return hashlib.sha256(data).hexdigest()


def open_folder(settings: config.Settings) -> pathlib.Path:
    """The configured folder.

    Raises:
        errors.ConfigError: it does not exist.
    """
    folder = settings.distiller.knowledge_dir
    if not folder.is_dir():
        raise errors.ConfigError(
            f"distiller.knowledge_dir: there is no folder {folder.absolute()}; make it, or name "
            "the folder of your documents in config.yaml"
        )
    return folder


def _check_name(name: str, suffixes: tuple[str, ...]) -> None:
    plain = _NAME.fullmatch(name) and pathlib.PurePath(name).suffix.lower() in suffixes
    if not plain or len(name.encode()) > _LONGEST_NAME_BYTES:
        raise errors.InvalidInputError(
            f"document name {name!r}: give a plain file name that ends in {' or '.join(suffixes)}, "
            "begins with a letter or a digit, has no folders and at most 200 bytes"
        )


def _checked_text(name: str, text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise errors.InvalidInputError(f"document {name}: its text is not UTF-8") from error
    if not text.strip():
        raise errors.InvalidInputError(f"document {name} is empty")
    if len(data) > LARGEST_BYTES:
        raise errors.InvalidInputError(
            f"document {name} has {len(data):,} bytes; at most {LARGEST_BYTES:,} are taken: "
            "split it"
        )
    return data
