"""The cache of vectors, and rewording on top of it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from services.distiller import rewording, vectors
from shared.models.embedded.recipe import families

LENGTH = families.Family(
    name="length",
    value="length",
    statements=("{x} is {v} long",),
    questions=("How long is {x}?", "What is the length of {x}?"),
)


class _Embedder:
    """Every text points the same way; counts what it is asked."""

    def __init__(self, direction: int = 0) -> None:
        self.texts = 0
        self._direction = direction

    async def embed(self, texts: Sequence[str]) -> vectors.Vectors:
        self.texts += len(texts)
        made = np.zeros((len(texts), 3), dtype=np.float32)
        made[:, self._direction] = 1.0
        return made


async def test_only_a_probe_is_embedded_when_vectors_are_kept(tmp_path: pathlib.Path) -> None:
    embedder, texts = _Embedder(), ["a", "b", "c"]
    first = await vectors.cached(embedder.embed, texts, tmp_path)
    second = await vectors.cached(embedder.embed, texts, tmp_path)
    assert np.array_equal(first, second)
    assert embedder.texts == 3 + 1


async def test_all_is_embedded_again_when_the_embedder_or_the_file_changed(
    tmp_path: pathlib.Path,
) -> None:
    await vectors.cached(_Embedder(0).embed, ["a", "b"], tmp_path)
    other = _Embedder(1)
    assert (await vectors.cached(other.embed, ["a", "b"], tmp_path))[0, 1] == 1.0
    assert other.texts == 1 + 2
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(b"\x93NUMPY damaged")
    assert (await vectors.cached(other.embed, ["a", "b"], tmp_path)).shape == (2, 3)


async def test_family_gives_its_wordings_when_a_question_is_near(tmp_path: pathlib.Path) -> None:
    embedder = _Embedder()
    made = rewording.Rewording(embedder.embed, [LENGTH], tmp_path)
    found = await made.reword("How long is Varnholt Bridge?", 5)
    assert "What is the length of the bridge at Varnholt?" in found
    assert "How long is Varnholt Bridge?" not in found


async def test_families_are_not_embedded_again_when_they_were_prepared(
    tmp_path: pathlib.Path,
) -> None:
    embedder = _Embedder()
    made = rewording.Rewording(embedder.embed, [LENGTH], tmp_path)
    await made.prepare()
    assert embedder.texts == 1  # Of two wordings the first stands for the family.
    await made.prepare()
    assert embedder.texts == 1
    assert list(tmp_path.glob("*.npy"))
