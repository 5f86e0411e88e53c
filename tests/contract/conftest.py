"""What several files of these tests ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.gateway.command_line import completing, node_page
from services.gateway.command_line.doctor import running
from services.gateway.nodes import member, openai_backend
from services.inference import answering, routing
from tests.contract.card_store_processes import Store

_PATIENCE_S = 120.0
_HURRIED = (
    (answering, "ROUTE_DEADLINE_S"),
    (routing, "_REPORT_DEADLINE_S"),
    (routing, "_EMBED_DEADLINE_S"),
    (openai_backend, "_ROUTE_DEADLINE_S"),
    (member, "LOOK_DEADLINE_S"),
    (node_page, "ANSWER_S"),
    (running, "_ANSWER_S"),
    (completing, "_LIMIT_S"),
)
"""After which somebody goes on without an answer, and says nothing of it."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starves on a busy machine is not taken for one who is away."""
    for module, name in _HURRIED:
        monkeypatch.setattr(module, name, _PATIENCE_S)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """For the tests of a file that neither kill it nor need it empty; each has names of its own."""
    opened = Store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.stop()
