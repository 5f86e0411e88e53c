"""What several files of these tests ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.card_store_processes import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """For the tests of a file that neither kill it nor need it empty; each has names of its own."""
    opened = Store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.stop()
