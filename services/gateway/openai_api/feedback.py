"""POST /v1/feedback: what a user says of an answer.

Whoever may correct may also poison: TEACHER and OPERATOR may, nobody else.
"""

from __future__ import annotations

import uuid

import fastapi
from starlette import responses

from services.gateway.calls import peers
from services.gateway.openai_api import keys, requests

_GIVE, _TELL = "Factory/GiveFeedback", "Agents/GiveFeedback"


def router(services: peers.Peers) -> fastapi.APIRouter:
    """The endpoint."""
    api = fastapi.APIRouter()

    @api.post("/v1/feedback")
    async def give(body: requests.FeedbackRequest, asker: keys.Asked) -> responses.Response:
        """Tells the factory, which learns a correction, and the agent that is named."""
        asker.caller.check_may(_GIVE)
        key = body.idempotency_key or uuid.uuid4().hex
        queued = None
        with asker.on_their_behalf():
            given = await services.factory.feedback(
                key,
                body.question,
                answer=body.answer,
                card=body.card,
                is_right=body.rating == "right",
                correction=body.correction,
            )
            if body.agent:
                asker.caller.check_may(_TELL)
                pairs = [(body.question, body.right_answer)]
                queued = await services.agents.tell(body.agent, pairs, key)
        told = {
            "object": "feedback",
            "task_id": given.task_id or None,
            "reason": given.reason or None,
            "agent": body.agent or None,
            "agent_queued": queued,
        }
        return responses.JSONResponse(told)

    return api
