"""What all tests have in common: how they are dealt out to several processes (`make test`)."""

from __future__ import annotations

import os

import pytest
from xdist import scheduler

_CLUSTERS = "tests/e2e/"


class _ByFile(scheduler.LoadFileScheduling):
    """A file's tests share a process and what they set up; all that start whole clusters, too."""

    def _split_scope(self, nodeid: str) -> str:
        return _CLUSTERS if nodeid.startswith(_CLUSTERS) else super()._split_scope(nodeid)


def pytest_configure() -> None:
    """Forgets the terminal: a console made while a test is imported would keep its width."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> scheduler.LoadFileScheduling | None:
    """Only where `--dist loadfile` asks for it."""
    return _ByFile(config, log) if config.getvalue("dist") == "loadfile" else None
