"""Vectors of the texts that every router practises on, as they come with the program.

To embed them takes some fifteen seconds of a processor, which no start needs to spend. A text that
is not among them is embedded as any other. Run it, `python -m services.router.shipped`, where those
texts or the embedder changed: it writes the file anew.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from services.router import practice, vector_store
from shared.models import embedder as embedders

PATH = pathlib.Path(__file__).parent / "practice.safetensors"


def load(path: pathlib.Path = PATH) -> Mapping[bytes, vector_store.Halves]:
    """Vectors of shape (dimension,), float16, by `vector_store.key_of`.

    Args:
        path: what `write` wrote.
    """
    tensors = safetensors.numpy.load_file(path)
    keys = (key.tobytes() for key in tensors["keys"])
    return dict(zip(keys, tensors["vectors"], strict=True))


def write(embedder: embedders.Embedder, path: pathlib.Path = PATH) -> None:
    """Embeds the texts and keeps `keys`, uint8 (texts, 32), and `vectors`, float16 (texts, D)."""
    texts = list(dict.fromkeys(practice.texts(embedder.vocabulary())))
    keys = [vector_store.key_of(embedder.vectors_id, text) for text in texts]
    tensors: dict[str, npt.NDArray[Any]] = {
        "keys": np.stack([np.frombuffer(key, dtype=np.uint8) for key in keys]),
        "vectors": embedder.embed(texts).astype(np.float16),
    }
    path.write_bytes(safetensors.numpy.save(tensors))


if __name__ == "__main__":
    write(embedders.Embedder())
