"""GET /healthz and /readyz, for whoever supervises or balances; open to everybody."""

from __future__ import annotations

import fastapi
from starlette import responses

from services.gateway.calls import peers
from services.gateway.openai_api import models
from services.gateway.web import draining

_ROUTER_DEADLINE_S = 1.0


def router(drain: draining.Drain, services: peers.Peers, fleet: models.Fleet) -> fastapi.APIRouter:
    """The endpoints."""
    api = fastapi.APIRouter()

    @api.get("/healthz")
    async def lives() -> responses.Response:
        """200 while the process lives."""
        return responses.JSONResponse({"status": "ok"})

    @api.get("/readyz")
    async def ready() -> responses.Response:
        """200 while a node and the router answer; else 503 with the reason."""
        reason = ""
        if drain.is_draining:
            reason = "shutting down"
        elif not any(node.status == "ready" for node in fleet.nodes()):
            reason = "no inference node answers"
        elif not await services.router.is_serving(_ROUTER_DEADLINE_S):
            reason = "the router does not answer"
        if not reason:
            return responses.JSONResponse({"status": "ready"})
        return responses.JSONResponse({"status": "not ready", "reason": reason}, 503)

    return api
