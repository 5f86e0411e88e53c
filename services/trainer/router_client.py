"""The way to the router: translates its rehearsals to the gate's dataclasses, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from services.trainer import gate
from shared import errors
from shared.cards import manifest as manifests
from shared.pb import router_pb2
from shared.rpc import client

_MOST_QUESTIONS = 2_000
"""Of one call; the router takes no more."""
_DEADLINE_S = 300.0
"""Its examples may wait to be embedded behind questions of users, on a machine that trains."""


class RouterClient:
    """`workshop.Rehearses` over a channel."""

    def __init__(self, stub: Any) -> None:
        """Takes the stub of the router's service."""
        self._stub = stub

    async def rehearse(
        self, manifest: manifests.Manifest, digest: str, questions: Sequence[str]
    ) -> gate.Rehearsal:
        """What the router would do with a draft among its cards.

        Args:
            manifest: of the draft.
            digest: of the draft.
            questions: more than 2,000 take several calls.

        Raises:
            errors.InternalError: what it answered is not about these questions.
            errors.SkillmeshError: the router can't be reached, or what it answered, typed.
        """
        found = await self._part(manifest, digest, questions[:_MOST_QUESTIONS])
        for at in range(_MOST_QUESTIONS, len(questions), _MOST_QUESTIONS):
            told = await self._part(manifest, digest, questions[at : at + _MOST_QUESTIONS])
            found = dataclasses.replace(found, questions=(*found.questions, *told.questions))
        return found

    async def _part(
        self, manifest: manifests.Manifest, digest: str, questions: Sequence[str]
    ) -> gate.Rehearsal:
        request = router_pb2.TryCardRequest(
            manifest_json=manifest.to_json(), digest=digest, questions=questions
        )
        response = await client.call(self._stub.TryCard, request, _DEADLINE_S)
        told = [tried.question for tried in response.questions]
        if told != list(questions):
            raise errors.InternalError(
                f"the router told of {len(told)} questions, not of the {len(questions)} that it "
                "was asked about, in their order; run router and trainer of the same version"
            )
        return gate.Rehearsal(_tried(response.questions), _tried(response.others))


def _tried(found: Iterable[Any]) -> tuple[gate.Tried, ...]:
    return tuple(
        gate.Tried(one.question, one.card, one.card_without, one.similarity, one.reading)
        for one in found
    )
