"""GET /v1/models and /v1/models/NAME."""

from __future__ import annotations

import fastapi
from starlette import responses

from services.gateway.openai_api import keys, models

_LIST = "CardStore/ListCards"


def router(known: models.Models) -> fastapi.APIRouter:
    """The endpoints."""
    api = fastapi.APIRouter()

    @api.get("/v1/models")
    async def all_models(asker: keys.Asked) -> responses.Response:
        """The base model, `auto`, the embedder, and the cards that somebody may see."""
        asker.caller.check_may(_LIST)
        return responses.JSONResponse({"object": "list", "data": await known.all(asker)})

    # A path: the id of a base model may have slashes.
    @api.get("/v1/models/{name:path}")
    async def one_model(name: str, asker: keys.Asked) -> responses.Response:
        """One of them, by any name that it may be asked by."""
        asker.caller.check_may(_LIST)
        return responses.JSONResponse(await known.one(asker, name))

    return api
