"""The project's embedder, as the router serves it: the distiller loads no model of its own."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import numpy as np

from services.distiller import vectors
from shared.pb import router_pb2_grpc
from shared.rpc import client, embedding

BATCH_TEXTS = 256
"""Texts a call: 393 KB of vectors, far below gRPC's limit, and a deadline that a slow machine
keeps."""
_DEADLINE_S = 60.0
_RETRY_S = 60.0


class RouterEmbedder:
    """Embeds texts by the router's `Embed`."""

    def __init__(self, channel: grpc.aio.Channel, retry_s: float = _RETRY_S) -> None:
        """Takes a channel to the router.

        Args:
            channel: connects on first use.
            retry_s: how long a router that is away is waited for, each batch.
        """
        self._stub = router_pb2_grpc.RouterStub(channel)
        self._retry_s = retry_s

    async def embed(self, texts: Sequence[str]) -> vectors.Vectors:
        """Unit vectors, shape (texts, dimension), float32.

        Raises:
            errors.UnavailableError: the router can't be reached.
            errors.IntegrityError: it sent another number of vectors.
        """
        starts = range(0, len(texts), BATCH_TEXTS)
        batches = [await self._batch(texts[at : at + BATCH_TEXTS]) for at in starts]
        if not batches:
            return np.zeros((0, 0), dtype=np.float32)
        return np.concatenate(batches)

    async def _batch(self, texts: Sequence[str]) -> vectors.Vectors:
        return await client.retried(
            lambda: embedding.embed(self._stub, texts, _DEADLINE_S), self._retry_s
        )
