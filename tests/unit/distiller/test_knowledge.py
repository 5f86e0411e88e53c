"""What may be put into the knowledge folder."""

from __future__ import annotations

import hashlib
import pathlib

import pytest

from services.distiller import knowledge
from shared import errors
from shared import settings as config
from shared.rpc import client
from tests.unit.distiller import pdf_files


@pytest.mark.parametrize(
    "name", ["notes.md", "Brücke 2.txt", "a-b_c.v2.md", "NOTES.MD", "page.html"]
)
def test_document_is_written_when_it_is_acceptable(name: str, tmp_path: pathlib.Path) -> None:
    digest = knowledge.KnowledgeFolder(tmp_path).add(name, "Grüße\n")
    assert (tmp_path / name).read_text(encoding="utf-8") == "Grüße\n"
    assert digest == hashlib.sha256("Grüße\n".encode()).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name",
    ["", ".md", ".hidden.md", "../a.md", "a/b.md", "a\\b.md", "/a.md", "a.pdf", "a", "a.md\n",
     "a\0.md", "x" * 200 + ".md", "-rf.md", "..md"],
)  # fmt: skip
def test_document_is_refused_when_its_name_is_not_plain(name: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidInputError, match="name"):
        knowledge.KnowledgeFolder(tmp_path).add(name, "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", " \n", "x" * (2 * 1024 * 1024 + 1), "\ud800"])
def test_document_is_refused_when_its_text_is_not_acceptable(
    text: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.InvalidInputError):
        knowledge.KnowledgeFolder(tmp_path).add("a.md", text)
    assert list(tmp_path.iterdir()) == []


def test_pdf_is_written_as_it_is_when_its_text_can_be_read(tmp_path: pathlib.Path) -> None:
    data = pdf_files.written(tmp_path / "orun.pdf", pdf_files.PAGES).read_bytes()
    (tmp_path / "folder").mkdir()
    digest = knowledge.KnowledgeFolder(tmp_path / "folder").add_pdf("orun.pdf", data)
    assert (tmp_path / "folder" / "orun.pdf").read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.pdf", b"%PDF-1.7 no more", "damaged"),
        ("a.md", b"%PDF-1.7", "name"),
        ("../a.pdf", b"%PDF-1.7", "name"),
        ("a.pdf", b"x" * (client.LARGEST_FILE_BYTES + 1), "by hand"),
    ],
)
def test_pdf_is_refused_when_it_can_not_be_read(
    name: str, data: bytes, told: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.InvalidInputError, match=told):
        knowledge.KnowledgeFolder(tmp_path).add_pdf(name, data)
    assert list(tmp_path.iterdir()) == []


def test_key_is_named_when_the_folder_is_missing(tmp_path: pathlib.Path) -> None:
    settings = config.Settings(distiller=config.Distiller(knowledge_dir=tmp_path / "none"))
    with pytest.raises(errors.ConfigError, match=r"distiller\.knowledge_dir"):
        knowledge.open_folder(settings)
