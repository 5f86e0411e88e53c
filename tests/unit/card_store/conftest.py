from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from services.card_store.catalogue import catalogue, schema
from tests import postgres
from tests.unit.card_store.house import House


@pytest.fixture
def sqlite_url(tmp_path: pathlib.Path) -> str:
    return f"sqlite:///{tmp_path / 'cata logue#?%.db'}"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no initdb")
    with postgres.running(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    found = str(request.getfixturevalue("postgres_url"))
    engine = sa.create_engine(found, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return found


@pytest.fixture
def cards(url: str) -> Iterator[catalogue.Catalogue]:
    opened = catalogue.Catalogue(schema.open_database(url))
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def house(tmp_path: pathlib.Path) -> Iterator[House]:
    opened = House(tmp_path / "card_store")
    yield opened
    opened.close()
