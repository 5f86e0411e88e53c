"""Routers with the fake embedder."""

from __future__ import annotations

import pytest

from services.router import practice, profile, router, words
from tests import fake_routers

EMBEDDER = fake_routers.EMBEDDER


@pytest.fixture(scope="session")
def ground() -> practice.Practice:
    return fake_routers.ground()


@pytest.fixture
def lora_router(ground: practice.Practice) -> router.LoRARouter:
    return fake_routers.lora_router(ground)


@pytest.fixture
def question():
    weigher = words.Words(EMBEDDER.vocabulary())

    def make(text: str) -> profile.Question:
        return profile.Question(text, EMBEDDER.embed([text])[0], weigher.of(text))

    return make


@pytest.fixture
def card_about():
    return fake_routers.card_about
