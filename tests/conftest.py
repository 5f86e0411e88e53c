"""What all tests have in common: how they are dealt out to several processes (`make test`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from xdist import scheduler

_CLUSTERS = "tests/e2e/"
_SHARED = ("tests/e2e/secured/", "tests/e2e/taught/")
"""Folders whose tests share a cluster."""
_LONG = (
    "tests/unit/distiller/codebase/test_this_repository.py",
    "tests/unit/test_card_properties.py",
    "tests/unit/hierarchy/test_hierarchy_in_trouble.py",
    "tests/unit/hierarchy/test_crashes.py",
)
"""Files that take half a minute or more."""
_FIRST = (*_SHARED, _CLUSTERS, *_LONG)
"""What takes longest, in this order: begun last it would end alone."""
_CORES_OF_A_CLUSTER = 2

# The terminal is forgotten: a console made while a test is imported would keep its width. Here, as
# folders' own `conftest.py` import before any hook is called.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)


class _ByFile(scheduler.LoadFileScheduling):
    """The tests of a file, or of a folder with a cluster, share a process and what they set up.

    On a small machine all that start clusters do, so that one runs at a time.
    """

    def _split_scope(self, nodeid: str) -> str:
        together = (_CLUSTERS,) if self.numnodes <= _CORES_OF_A_CLUSTER else _SHARED
        found = next((folder for folder in together if nodeid.startswith(folder)), None)
        return found or super()._split_scope(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that the processes end at about the same time."""
    places = [
        next((at for at, path in enumerate(_FIRST) if item.nodeid.startswith(path)), len(_FIRST))
        for item in items
    ]
    order = sorted(range(len(items)), key=lambda at: places[at])
    items[:] = [items[at] for at in order]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> scheduler.LoadFileScheduling | None:
    """Only where `--dist loadfile` asks for it."""
    return _ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _logs_are_caught(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes back what a test made of the logs: a logger that is kept is caught by no later test."""
    configure = structlog.configure

    def without_keeping(*arguments: Any, **more: Any) -> None:
        configure(*arguments, **{**more, "cache_logger_on_first_use": False})

    with monkeypatch.context() as changed:
        changed.setattr(structlog, "configure", without_keeping)
        yield
    structlog.reset_defaults()
