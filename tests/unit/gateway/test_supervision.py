"""A real supervisord over a process that does nothing."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable

import pytest

from services.gateway.cluster import programs, supervision
from shared import errors

SLEEPER = programs.Program("sleeper", "tests.unit.gateway.sleeper", "127.0.0.1:1", "none")


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_does_not_start_when_others_can_write_where_its_socket_would_be(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared_by_all = tmp_path / f"skillmesh-{os.getuid()}"
    shared_by_all.mkdir()
    shared_by_all.chmod(0o777)
    supervisor = supervision.Supervisor(tmp_path / ("x" * 90))
    with pytest.raises(errors.ConfigError, match=r"cluster\.state_dir"):
        supervisor.start([SLEEPER], os.environ)
    assert not supervisor.alive()


def test_restarts_a_process_when_it_is_killed(tmp_path: pathlib.Path) -> None:
    # Spaces in the path, which is too long for a socket.
    supervisor = supervision.Supervisor(tmp_path / "half of it" / ("x" * 90))
    supervisor.start([SLEEPER], os.environ)
    try:

        def pid() -> int:
            return supervisor.processes()[0].pid

        log = supervisor.log("sleeper")
        until(lambda: pid() > 0 and supervision.tail(log, 1) == "100 % awake")
        first = pid()
        os.kill(first, signal.SIGKILL)
        until(lambda: pid() not in (0, first))
        until(lambda: supervision.tail(log, 9).count("awake") == 2)
        last = pid()
    finally:
        supervisor.stop()
    assert not supervisor.alive()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_says_make_up_when_nothing_runs(tmp_path: pathlib.Path) -> None:
    supervisor = supervision.Supervisor(tmp_path)
    assert not supervisor.alive()
    with pytest.raises(errors.UnavailableError, match="make up"):
        supervisor.processes()


def test_names_the_key_when_the_state_folder_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.ConfigError, match=r"cluster\.state_dir"):
        supervision.Supervisor(tmp_path / "file").start([SLEEPER], os.environ)


def test_shows_the_last_lines_when_a_log_is_long(tmp_path: pathlib.Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo \xff\nthree\n")
    assert supervision.tail(tmp_path / "log", 2) == "two \ufffd\nthree"
    assert supervision.tail(tmp_path / "none", 2) == ""
