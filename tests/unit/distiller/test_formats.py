"""What is read of HTML and PDF files, real ones made here, and why a file is refused."""

from __future__ import annotations

import io
import os
import pathlib

import matplotlib
import pypdf
import pytest

from services.distiller.documents import reading
from shared import errors
from tests.unit.distiller import pdf_files

matplotlib.use("Agg")
from matplotlib import pyplot

PAGE = """<!doctype html><html><head><title>Orun guide</title><style>p {color: red}</style></head>
<body><nav><ul><li>Home</li></ul></nav>
<main><h1>Orun</h1><p>Orun is a <b>town</b>.<br>It was founded in 1871 by Dr. Ida Kroll.</p>
<h2>Transport</h2><div>Loose text here. <p>A paragraph.</p></div>
<ul><li>The ferry costs 3 crowns.<ul><li>Dogs ride free.</li></ul></li></ul>
<table><tr><th>Line</th><th>Colour</th></tr><tr><td>1</td><td>red</td></tr></table>
<dl><dt>Harbour</dt><dd>East of the town.</dd></dl>
<p>To ring the bell, run:</p><pre>bell ring
bell stop</pre>
<p hidden>Nobody sees this.</p><script>var x = "nor this";</script></main>
<footer>Imprint</footer></body></html>"""


def texts(document: reading.Document) -> list[str]:
    return [passage.text for passage in document.passages]


def test_what_a_reader_sees_is_read_when_a_page_is_html() -> None:
    document = reading.parse("orun.html", PAGE)
    assert document.title == "Orun"
    assert texts(document) == [
        "Orun is a town.",
        "It was founded in 1871 by Dr. Ida Kroll.",
        "Loose text here.",
        "A paragraph.",
        "The ferry costs 3 crowns.",
        "Dogs ride free.",
        "Line: 1, Colour: red",
        "Harbour: East of the town.",
        "To ring the bell, run: bell ring",
        "To ring the bell, run: bell stop",
    ]
    assert document.passages[4].headings == ("Orun", "Transport")


def test_title_element_names_a_page_when_it_has_no_heading() -> None:
    assert reading.parse("x.htm", "<title>The  tide</title><p>It rises.</p>").title == "The tide"


def test_deep_nesting_is_survived_when_a_page_is_hostile() -> None:
    document = reading.parse("x.html", "<p>Top.</p>" + "<div>" * 5000 + "deep" + "</div>" * 5000)
    assert texts(document)[0] == "Top."


@pytest.mark.parametrize("text", ["", "<html></html>", "<script>x</script>", "<h1>Only this</h1>"])
def test_page_is_refused_when_it_says_nothing(text: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=r"empty\.html"):
        reading.parse("empty.html", text)


def test_sentences_are_read_across_lines_when_a_pdf_has_text(tmp_path: pathlib.Path) -> None:
    document = reading.read(pdf_files.written(tmp_path / "orun.pdf", pdf_files.PAGES))
    assert document.title == "The Orun lighthouse"
    assert texts(document) == [
        "The Orun lighthouse stands on a cliff above the old harbour.",
        "It was built in 1871 by Ida Kroll.",
        "Its lamp burns rape oil to this day, since nobody paid for it.",
        "Visitors climb 164 steps to the gallery of the tower.",
    ]
    assert [passage.line for passage in document.passages] == [1, 1, 1, 2]


def _encrypted(source: pathlib.Path, password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=source)
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_encrypted_pdf_is_read_when_it_needs_no_password(tmp_path: pathlib.Path) -> None:
    path = pdf_files.written(tmp_path / "orun.pdf", pdf_files.PAGES)
    path.write_bytes(_encrypted(path, ""))
    assert len(reading.read(path).passages) == 4


def _locked(path: pathlib.Path) -> None:
    path.write_bytes(_encrypted(pdf_files.written(path, pdf_files.PAGES), "secret"))


def _scanned(path: pathlib.Path) -> None:
    figure = pyplot.figure()
    figure.figimage([[0.0, 1.0], [1.0, 0.0]])
    figure.savefig(path)
    pyplot.close(figure)


def _cut_off(path: pathlib.Path) -> None:
    path.write_bytes(pdf_files.written(path, pdf_files.PAGES).read_bytes()[:600])


def _no_pdf(path: pathlib.Path) -> None:
    path.write_bytes(b"%PDF-1.7\n" + b"\0\xff" * 50)


def _nothing(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def _empty_page(path: pathlib.Path) -> None:
    pdf_files.written(path, [[]])


@pytest.mark.parametrize(
    ("make", "reason"),
    [(_locked, "encrypted"), (_scanned, "text recognition"), (_cut_off, "damaged"),
     (_no_pdf, "damaged"), (_nothing, "damaged"), (_empty_page, "no sentences")],
)  # fmt: skip
def test_pdf_is_refused_with_its_reason_when_it_holds_no_text(
    make: object, reason: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bad.pdf"
    make(path)  # type: ignore[operator]
    with pytest.raises(errors.InvalidInputError, match=rf"bad\.pdf.*{reason}"):
        reading.read(path)


def test_other_documents_are_read_when_one_of_a_folder_is_damaged(tmp_path: pathlib.Path) -> None:
    _no_pdf(tmp_path / "bad.pdf")
    (tmp_path / "orun.html").write_text(PAGE)
    (tmp_path / "tide.md").write_text("The tide is 4 m high.")
    pdf_files.written(tmp_path / "light.pdf", pdf_files.PAGES)
    found = reading.read_folder(tmp_path)
    assert [document.name for document in found] == ["light.pdf", "orun.html", "tide.md"]


def test_files_are_read_once_when_they_do_not_change(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tide.md"
    path.write_text("The tide is 4 m high.")
    reader = reading.FolderReader(tmp_path)
    (first,) = reader.read()
    assert reader.read()[0] is first
    path.write_text("The tide is 5 m high.")
    os.utime(path, ns=(1, 1))
    assert texts(reader.read()[0]) == ["The tide is 5 m high."]
    path.unlink()
    assert reader.read() == []


def test_document_is_refused_when_it_is_too_large(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "big.html"
    path.write_bytes(b"x" * (reading.LARGEST_DOCUMENT_BYTES + 1))
    with pytest.raises(errors.InvalidInputError, match="split it"):
        reading.read(path)
