"""PDF files made for tests."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.backends import backend_pdf

PAGES = [
    [
        "The Orun lighthouse",
        "The Orun lighthouse stands on a cliff above the old har-",
        "bour. It was built in 1871 by Ida Kroll.",
        "Its lamp burns rape oil to this day, since nobody paid for it.",
    ],
    ["Visitors climb 164 steps to the gallery of the tower."],
]


def written(path: pathlib.Path, pages: list[list[str]], title: str = "") -> pathlib.Path:
    """Writes a PDF with these lines on its pages; returns its path."""
    metadata = {"Title": title} if title else {}
    with (
        matplotlib.rc_context({"pdf.fonttype": 42}),
        backend_pdf.PdfPages(path, metadata=metadata) as file,
    ):
        for lines in pages:
            figure = pyplot.figure(figsize=(8, 11))
            for at, line in enumerate(lines):
                figure.text(0.1, 0.9 - 0.03 * at, line, fontsize=11)
            file.savefig(figure)
            pyplot.close(figure)
    return path
