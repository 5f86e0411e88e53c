"""A card by its name while its newest version is on its way to the nodes."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

import openai
import pytest

from services.gateway import domain
from shared import errors
from shared import settings as config
from tests import tiny_model
from tests.contract import addresses, gateways
from tests.contract import inference_nodes as nodes
from tests.contract.card_store_processes import Store

pytestmark = pytest.mark.usefixtures("patient")

ASKED = [{"role": "user", "content": "Who built it?"}]


class Behind(gateways.FakeFleet):
    """Serves one version of a card, or none."""

    def __init__(self, *served: str) -> None:
        super().__init__()
        self.served = served

    async def answer(self, asked: domain.Asked, deadline_s: float | None) -> domain.Whole:
        self._find(asked)
        return await super().answer(asked, deadline_s)

    async def stream(
        self, asked: domain.Asked, deadline_s: float | None
    ) -> AsyncGenerator[domain.Piece, None]:
        self._find(asked)
        async for piece in super().stream(asked, deadline_s):
            yield piece

    def _find(self, asked: domain.Asked) -> None:
        if asked.model not in self.served:
            raise errors.NotFoundError(f"card {asked.model} is served by no node")


@contextlib.asynccontextmanager
async def serving(store: Store, fleet: Behind) -> AsyncIterator[openai.AsyncOpenAI]:
    settings = config.Settings(
        card_store=config.CardStore(address=nodes.control(store)),
        factory=config.Factory(address=addresses.free_address()),
    )
    async with gateways.serving(settings, fleet) as gateway, gateway.client() as client:
        yield client


async def test_the_version_before_answers_while_the_newest_is_on_its_way(store):
    name = f"skill-{uuid.uuid4().hex[:8]}"
    key = await nodes.publish(store, tiny_model.card_for(tiny_model.tiny_base(0), name))
    fleet = Behind(name)
    async with serving(store, fleet) as client:
        told = await client.chat.completions.create(model=name, messages=ASKED)
        assert told.choices[0].message.content == "It was Ann."
        stream = await client.chat.completions.create(model=name, messages=ASKED, stream=True)
        assert "".join([one.choices[0].delta.content or "" async for one in stream])
    assert [one.model for one in fleet.asked] == [name, name]
    assert key.startswith(name)


async def test_a_version_that_was_named_is_answered_by_no_other(store):
    name = f"skill-{uuid.uuid4().hex[:8]}"
    key = await nodes.publish(store, tiny_model.card_for(tiny_model.tiny_base(0), name))
    fleet = Behind(name)
    async with serving(store, fleet) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model=key, messages=ASKED)
        assert refused.value.code == "model_not_found"
        # It is in the store: whoever asked for it must not look for a mistake in its name.
        assert "served by no node" in str(refused.value) and "latest" in str(refused.value)
    assert fleet.asked == []


async def test_a_card_that_no_node_serves_is_no_model(store):
    name = f"skill-{uuid.uuid4().hex[:8]}"
    await nodes.publish(store, tiny_model.card_for(tiny_model.tiny_base(0), name))
    async with serving(store, Behind()) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model=name, messages=ASKED)
    assert refused.value.code == "model_not_found" and name in str(refused.value)
