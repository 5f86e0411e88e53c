from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from services.card_store import catalogue, schema


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"sqlite:///{tmp_path / 'cata logue#?%.db'}"


@pytest.fixture
def cards(url: str) -> Iterator[catalogue.Catalogue]:
    opened = catalogue.Catalogue(schema.open_database(url))
    opened.migrate()
    yield opened
    opened.close()
