"""Vectors kept from one run to the next."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.router import vectors


class _Embedder:
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.embedded: list[str] = []

    async def embed(self, texts):
        self.embedded += texts
        return np.array([[len(text), self.scale] for text in texts], dtype=np.float32)


async def test_nothing_is_embedded_again_when_an_earlier_run_did(tmp_path):
    path = tmp_path / "made" / "v.npz"
    await vectors.Vectors(path, _Embedder().embed).embed(["a", "bb", "a"])
    later = _Embedder()
    known = vectors.Vectors(path, later.embed)
    assert (await known.embed(["bb", "a", "ccc"])).tolist() == [[2, 1], [1, 1], [3, 1]]
    assert (await known.query("a")).tolist() == [1, 1]
    assert later.embedded == ["ccc"]


async def test_all_is_forgotten_when_the_embedder_gives_other_vectors(tmp_path):
    path = tmp_path / "v.npz"
    await vectors.Vectors(path, _Embedder().embed).embed(["a", "bb"])
    known = vectors.Vectors(path, _Embedder(scale=2.0).embed)
    await known.check(["unseen", "a"])
    assert (await known.embed(["bb"])).tolist() == [[2, 2]]


async def test_vectors_are_made_anew_when_the_file_is_damaged(tmp_path):
    path = tmp_path / "v.npz"
    path.write_bytes(b"PK half a file")
    known = vectors.Vectors(path, _Embedder().embed)
    assert (await known.embed(["a"])).tolist() == [[1, 1]]


async def test_a_text_is_missing_when_it_was_never_embedded(tmp_path):
    with pytest.raises(KeyError):
        vectors.Vectors(tmp_path / "v.npz", _Embedder().embed).of(["a"])
