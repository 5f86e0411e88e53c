"""Asks the router, which has the project's one embedder, for the vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shared import errors
from shared.pb import router_pb2
from shared.rpc import client

Vectors = npt.NDArray[np.float32]


async def embed(stub: Any, texts: Sequence[str], deadline_s: float) -> Vectors:
    """Unit vectors, shape (texts, dimension), float32.

    Args:
        stub: of the router.
        texts: at least one, and as many as one call takes.
        deadline_s: for the call.

    Raises:
        errors.IntegrityError: it sent another number of vectors.
        errors.SkillmeshError: it can't be reached, or what it answered, typed.
    """
    request = router_pb2.EmbedRequest(texts=list(texts))
    response = await client.call(stub.Embed, request, deadline_s)
    values = np.frombuffer(response.vectors, dtype="<f4")
    if response.dimension <= 0 or len(values) != len(texts) * response.dimension:
        raise errors.IntegrityError(
            f"the router sent {len(response.vectors)} bytes for {len(texts)} texts of "
            f"{response.dimension} dimensions; both sides must run the same version"
        )
    return values.reshape(len(texts), response.dimension).astype(np.float32)
