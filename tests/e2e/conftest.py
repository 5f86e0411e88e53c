"""A browser, and consoles over fake clusters; nothing is started where no test asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright import sync_api

from shared.security import callers
from tests.e2e import browsing, consoles

TOKENS = {"operator": "olga", "teacher": "tom", "user": "ulla"}


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with browsing.browser() as started:
        yield started


@pytest.fixture(scope="module")
def anybody(browser: sync_api.Browser) -> Iterator[sync_api.BrowserContext]:
    """One person for all tests that leave nothing behind in the browser."""
    with browsing.person(browser) as person:
        yield person


@pytest.fixture(scope="module")
def open_base(browser: sync_api.Browser) -> Iterator[str]:
    with consoles.served() as base:
        yield base


@pytest.fixture
def base(open_base: str) -> str:
    consoles.scene(open_base, "full")
    return open_base


@pytest.fixture(scope="module")
def guarded(browser: sync_api.Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """With tokens; the hierarchy is switched off."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    known = [
        {"name": name, "sha256": callers.hash_of(f"{name}-token"), "role": role}
        for role, name in TOKENS.items()
    ]
    path.write_text(json.dumps(known))
    with consoles.served(str(path)) as base:
        yield base
