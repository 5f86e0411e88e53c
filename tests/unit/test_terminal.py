"""How command lines speak: what a pipe gets, and the codes they end with."""

from __future__ import annotations

import errno
import io
import os

import pytest
import rich.table

from shared import errors, terminal
from shared.pb import inference_pb2

LONG = "x" * 64


def printed(monkeypatch: pytest.MonkeyPatch) -> str:
    """A table of two long texts, as stdout gets it."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    table = rich.table.Table("a", "b")
    table.add_row(LONG, LONG)
    terminal.RESULT.print(table)
    return written.getvalue()


def test_nothing_is_cut_off_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert printed(monkeypatch).count(LONG) == 2


def test_columns_that_somebody_asks_for_are_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, printed(monkeypatch).splitlines())) == 60


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [
        (0, "0 kB"),
        (297_600, "298 kB"),
        (1_250_000, "1.2 MB"),
        (3.2e9, "3.2 GB"),
        (2e12, "2,000.0 GB"),
    ],
)
def test_a_size_is_told_in_the_unit_that_fits_it(size_bytes: float, told: str) -> None:
    assert terminal.size(size_bytes) == told


def test_an_argument_that_is_no_utf8_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    question = os.fsdecode(b"Who \xff?")
    with pytest.raises(SystemExit) as ended, terminal.exit_codes():
        inference_pb2.GenerateRequest(query=question)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: 'Who \\udcff?' is not UTF-8")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (terminal.UsageError("wrong"), 2),
        (errors.NotFoundError("no"), 1),
        (errors.ConfigError("no"), 1),
        (terminal.FailedError("no"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (errors.UnavailableError("later"), 3),
        (errors.DeadlineError("later"), 3),
        (errors.OverloadedError("later"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_says_whether_another_try_may_help(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, terminal.exit_codes():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith("error: ")
