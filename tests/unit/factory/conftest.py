from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from services.factory import board, ledger
from tests.unit.factory import fakes


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> Iterator[ledger.Ledger]:
    opened = ledger.Ledger(f"sqlite:///{tmp_path / 'factory.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
async def tasks_board(tmp_path: pathlib.Path) -> AsyncIterator[board.TaskBoard]:
    opened = board.TaskBoard(
        ledger.Ledger(f"sqlite:///{tmp_path / 'factory.sqlite'}"), fakes.Clock().ms
    )
    yield opened
    await opened.close()
