"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them, but by card.

A card is pinned in the memory of every node, or let go; operators may, nobody else. No file of a
path is ever loaded: what is signed and in the store can be asked for by name without any of this.
"""

from __future__ import annotations

import fastapi
from starlette import responses

from services.gateway.openai_api import asking, keys, models, refusals, requests

_PIN, _UNPIN = "Inference/PinCard", "Inference/UnpinCard"
_NO_CARDS = (models.AUTO, models.BASE, models.SPECIALIST)


def router(fleet: asking.Fleet, known: models.Models) -> fastapi.APIRouter:
    """The endpoints."""
    api = fastapi.APIRouter()

    @api.post("/v1/load_lora_adapter")
    async def load(body: requests.AdapterRequest, asker: keys.Asked) -> responses.Response:
        """Keeps a card in memory on all nodes."""
        asker.caller.check_may(_PIN)
        card = await _card(known, asker, body.lora_name)
        with asker.on_their_behalf():
            nodes = await fleet.pin(card)
        told = {"status": "loaded", "lora_name": body.lora_name, "card": card}
        return responses.JSONResponse(told | {"nodes": list(nodes)})

    @api.post("/v1/unload_lora_adapter")
    async def unload(body: requests.AdapterRequest, asker: keys.Asked) -> responses.Response:
        """Lets it leave the memory of all nodes; it may still be asked."""
        asker.caller.check_may(_UNPIN)
        card = await _card(known, asker, body.lora_name)
        with asker.on_their_behalf():
            nodes = await fleet.unpin(card)
        told = {"status": "unloaded", "lora_name": body.lora_name, "card": card}
        return responses.JSONResponse(told | {"nodes": list(nodes)})

    return api


async def _card(known: models.Models, asker: keys.Asker, name: str) -> str:
    found = await known.resolved(asker, name)
    if found in _NO_CARDS:
        raise refusals.ParameterError("lora_name", f"{name} is no card; GET /v1/models lists them")
    return found
