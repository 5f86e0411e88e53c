"""What `model` may name, and what the lists of models tell.

`auto` (the router decides), `base` or the base model's own id, `specialist_local` (the card of a
code base), a card's name, `name@digest` or `name@alias`; and the embedder, for embeddings.
"""

from __future__ import annotations

from typing import Any, Protocol

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.openai_api import keys, refusals
from shared import errors
from shared.cards import manifest as manifests
from shared.models import embedder_id

AUTO, BASE = "auto", "base"
SPECIALIST = manifests.SPECIALIST_LOCAL
EMBEDDER = embedder_id.EMBEDDER_ID
_OWNER = "skillmesh"
_MS = 1000


class Fleet(Protocol):
    """Which inference nodes there are."""

    def nodes(self) -> tuple[domain.NodeState, ...]:
        """All of them."""
        ...


class Models:
    """The models of one cluster, as each caller may see them."""

    def __init__(self, fleet: Fleet, services: peers.Peers, base: str, began_s: int) -> None:
        """Takes who knows them.

        Args:
            fleet: the nodes, which know the base model's id.
            services: the store, which knows the cards.
            base: id of the base model while no node has told it.
            began_s: Unix time that models without a date are told to be of.
        """
        self._fleet, self._services = fleet, services
        self._base, self._began_s = base, began_s

    @property
    def base(self) -> str:
        """The base model's id."""
        told = (one.base_model for one in self._fleet.nodes() if one.base_model)
        return next(told, self._base)

    async def resolved(self, asker: keys.Asker, name: str) -> str:
        """A model as nodes know it: `auto`, `base`, `specialist_local` or `name@digest`.

        Raises:
            refusals.ModelNotFoundError: there is none of that name, or not for them.
            errors.SkillmeshError: the store can't be asked.
        """
        if name in (AUTO, SPECIALIST):
            return name
        if name in (BASE, self.base):
            return BASE
        if name == EMBEDDER:
            raise refusals.ParameterError(
                "model", f"{EMBEDDER} embeds texts, by /v1/embeddings; it answers no questions"
            )
        return (await self._card(asker, name)).reference

    async def one(self, asker: keys.Asker, name: str) -> dict[str, Any]:
        """One model as OpenAI's protocol tells it.

        Raises:
            refusals.ModelNotFoundError: there is none of that name, or not for them.
            errors.SkillmeshError: the store can't be asked.
        """
        for own in self._own():
            if name == own["id"]:
                return own
        if name in (BASE, SPECIALIST):
            return self._model(name, self.base, self._began_s)
        card = await self._card(asker, name)
        return self._of_card(card) | {"id": name}

    async def all(self, asker: keys.Asker) -> list[dict[str, Any]]:
        """The models that somebody may ask, as OpenAI's protocol tells them.

        Raises:
            errors.SkillmeshError: the store can't be asked.
        """
        with asker.on_their_behalf():
            cards = await self._services.store.cards()
        return [*self._own(), *map(self._of_card, cards)]

    def _own(self) -> list[dict[str, Any]]:
        base = self.base
        return [
            self._model(base, base, self._began_s),
            self._model(AUTO, base, self._began_s, parent=base),
            self._model(EMBEDDER, EMBEDDER, self._began_s),
        ]

    def _of_card(self, card: domain.Card) -> dict[str, Any]:
        told = {
            "version": card.version,
            "domain": card.domain,
            "description": card.description,
            "aliases": list(card.aliases),
            "size_bytes": card.size_bytes,
        }
        created_s = card.created_at_ms // _MS
        return self._model(card.name, card.reference, created_s, parent=self.base) | {
            "skillmesh": told
        }

    def _model(
        self, name: str, root: str, created_s: int, parent: str | None = None
    ) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created_s,
            "owned_by": _OWNER,
            "root": root,
            "parent": parent,
        }

    async def _card(self, asker: keys.Asker, name: str) -> domain.Card:
        """As the store lets them see it: whoever may not see a card may not ask it either."""
        try:
            with asker.on_their_behalf():
                return await self._services.store.card(name)
        except (errors.NotFoundError, errors.InvalidInputError) as error:
            raise refusals.ModelNotFoundError(name) from error
