"""The vectors that come with the program: they are those of the texts, and nobody makes them again.

Where the texts or the embedder changed: `python -m services.router.shipped`.
"""

from __future__ import annotations

import numpy as np
import pytest

from services.router import practice, shipped, vector_store
from shared.models import embedder as embedders

EVERY = 40
"""Embedding all texts takes what shipping them saves."""


@pytest.fixture(scope="module")
def model() -> embedders.Embedder:
    return embedders.Embedder()


@pytest.fixture(scope="module")
def texts(model: embedders.Embedder) -> list[str]:
    return practice.texts(model.vocabulary())


async def _nothing(texts):
    raise AssertionError(f"{len(texts)} texts were embedded, such as {texts[0]!r}")


async def test_nothing_is_embedded_when_a_router_practises(tmp_path, model, texts):
    path = tmp_path / "vectors.sqlite"
    vectors = vector_store.VectorStore(path, model.vectors_id, _nothing, shipped=shipped.load())
    found = await vectors.embed(texts)
    await vectors.close()
    assert found.shape == (len(texts), embedders.DIMENSION) and found.dtype == np.float32


def test_vectors_are_what_the_embedder_makes(model, texts):
    kept = shipped.load()
    some = texts[::EVERY]
    expected = model.embed(some)
    found = np.stack([kept[vector_store.key_of(model.vectors_id, text)] for text in some])
    assert np.abs(found - expected).max() < 1e-3


def test_nothing_is_shipped_that_no_router_asks_for(model, texts):
    asked = {vector_store.key_of(model.vectors_id, text) for text in texts}
    assert set(shipped.load()) == asked


def test_file_is_read_back_when_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(practice, "texts", lambda vocabulary: ["How high?", "Why?", "How high?"])

    class Model:
        vectors_id = "turned"

        def vocabulary(self):
            return []

        def embed(self, texts):
            return np.array([[len(text), 0.5] for text in texts], dtype=np.float32)

    path = tmp_path / "practice.safetensors"
    shipped.write(Model(), path)
    found = shipped.load(path)
    assert {key: list(vector) for key, vector in found.items()} == {
        vector_store.key_of("turned", text): [len(text), 0.5] for text in ("How high?", "Why?")
    }


async def test_only_the_rest_is_embedded_and_kept_when_some_are_shipped(tmp_path):
    path, asked = tmp_path / "vectors.sqlite", []
    known = {vector_store.key_of("any", "here"): np.array([0, 1], dtype=np.float16)}

    async def embed(texts):
        asked.extend(texts)
        return np.array([[1, 0]] * len(texts), dtype=np.float32)

    for _ in range(2):
        vectors = vector_store.VectorStore(path, "any", embed, shipped=known)
        assert (await vectors.embed(["new", "here"])).tolist() == [[1, 0], [0, 1]]
        await vectors.close()
    vectors = vector_store.VectorStore(path, "any", embed)
    await vectors.embed(["new", "here"])
    await vectors.close()
    assert asked == ["new", "here"]
