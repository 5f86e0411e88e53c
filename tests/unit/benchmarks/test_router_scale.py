from __future__ import annotations

import contextlib

import numpy as np
import pytest

from benchmarks.router import production, scale, vectors
from services.router import neighbours, practice
from tests import fake_routers

WORDS = ("skarn", "tarn", "corv", "delm", "ost", "brun", "alv", "ferr")


@pytest.fixture
def mixtures() -> scale.Mixtures:
    texts = [f"{a} what of {b}" for a in WORDS for b in WORDS]
    return scale.Mixtures(texts, fake_routers.EMBEDDER.embed(texts), WORDS)


def test_mixtures_are_the_same_and_of_unit_length_when_the_seed_is(mixtures):
    (texts, made_N_D), (again, same_N_D) = mixtures.block(3, 50), mixtures.block(3, 50)
    assert texts == again
    assert (made_N_D == same_N_D).all()
    assert np.linalg.norm(made_N_D, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert (mixtures.block(4, 50)[1] != made_N_D).any()


def test_recall_is_that_of_what_was_found_when_half_is_missing(mixtures, monkeypatch):
    monkeypatch.setattr(scale, "_BLOCK", 64)
    cards_C_D = np.concatenate([mixtures.block(n, 64)[1] for n in range(3)])
    asked_A_D: vectors.Matrix = mixtures.block(9, 7)[1]
    nearest_A_C = np.argsort(-(asked_A_D @ cards_C_D.T), axis=1, kind="stable")
    found = [[f"card-{n}" for n in row[:5]] for row in nearest_A_C]
    assert scale.recall(found, mixtures, len(cards_C_D), asked_A_D) == 0.5
    found = [[f"card-{n}" for n in row[:10]] for row in nearest_A_C]
    assert scale.recall(found, mixtures, len(cards_C_D), asked_A_D) == 1.0


@pytest.fixture
def ground() -> practice.Practice:
    return fake_routers.ground()


async def test_rows_are_measured_when_a_router_has_many_cards(mixtures, monkeypatch, ground):
    @contextlib.asynccontextmanager
    async def small(_embedder, _cards, embed, embed_query):
        built = fake_routers.lora_router(ground, 50, embed, embed_query)
        yield built
        await built.close()

    monkeypatch.setattr(production, "router", small)
    monkeypatch.setattr(neighbours, "_EXACT_VECTORS", 100)
    monkeypatch.setitem(scale.INDEX_MOST_MS, "few", 1.0)
    rows = {row.name: row for row in await scale.at(None, mixtures, mixtures, "few", 300)}
    assert rows["index_recall_at_10_few"].value > 0.9
    assert "300 virtual cards" in rows["decision_few_ms"].note
    assert all(row.value is not None for row in rows.values())
