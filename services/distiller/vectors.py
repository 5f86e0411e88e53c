"""Sentence vectors as the distiller sees them: a function from texts to unit vectors, and a cache.

Knows nothing about who embeds; see `embed_client` for the router's embedder.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt

from shared import atomic

Vectors = npt.NDArray[np.float32]
"""Unit vectors, shape (texts, dimension)."""
AsyncEmbed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Texts to unit vectors, shape (texts, dimension)."""

_SAME_EMBEDDER = 0.999


async def cached(embed: AsyncEmbed, texts: Sequence[str], folder: pathlib.Path) -> Vectors:
    """Embeds many texts that seldom change; the vectors are kept on disk.

    The first text is embedded every time: where it no longer points where the kept vector points,
    the embedder was changed and everything is embedded again.

    Args:
        embed: the embedder.
        texts: what to embed; the hash of all of them names the file.
        folder: where the file is kept.
    """
    if not texts:
        return await embed(texts)
    path = folder / f"{_digest(texts)}.npy"
    kept = _load(path, len(texts))
    if kept is not None:
        probe = await embed(texts[:1])
        if probe.shape[1] == kept.shape[1] and float(probe[0] @ kept[0]) >= _SAME_EMBEDDER:
            return kept
    made = await embed(texts)
    buffer = io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    atomic.write(path, buffer.getvalue())
    return made


def _load(path: pathlib.Path, rows: int) -> Vectors | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        # A damaged file only costs the embedding.
        return None
    if found.ndim != 2 or len(found) != rows or found.dtype != np.float32:
        return None
    vectors: Vectors = found
    return vectors


def _digest(texts: Sequence[str]) -> str:
    hasher = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    return hasher.hexdigest()
