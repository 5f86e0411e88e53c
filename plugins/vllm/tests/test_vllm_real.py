"""The plugin in a real vLLM, which serves the embedded model with cards of a real store."""

from __future__ import annotations

import asyncio
import http
import importlib.metadata
import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import openai
import pytest
import skillmesh_vllm
import stores
import test_vllm_peft_folder
import vllm_server
from skillmesh_vllm import resolver

from shared.cards import card as cards
from shared.lora import manager
from shared.models import base as bases
from shared.pb import cards_pb2
from shared.rpc import client as rpc_client
from tests import tiny_model
from tests.contract.card_store_processes import Store

QUESTION = "What is the capital of France?"
TOKENS, LONG = 12, 200
EVERY_KIND = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip
ESCAPING = ("../secret", "skill@../../x", "/etc/passwd", "first-skill@latest/../..")


def why_not() -> str:
    """Why vLLM can't be used here; empty where it can."""
    if importlib.util.find_spec("vllm") is None:
        return "vllm is not installed in this environment"
    found = importlib.metadata.entry_points(group="vllm.general_plugins")
    if "skillmesh" not in found.names:
        return "vllm is installed, the plugin is not: pip install ./plugins/vllm"
    from vllm.platforms import current_platform

    return "" if current_platform.device_type else "this build of vllm finds no device to run on"


WHY_NOT = why_not()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.filterwarnings("default"),  # vLLM's own are not ours to mend.
]


class Published(NamedTuple):
    """A real store with cards in it."""

    store: Store
    base: bases.BaseModel
    cards: dict[str, cards.LoRACard]
    """By `name@digest`."""

    async def publish(self, card: cards.LoRACard, alias: str = "production") -> str:
        """Uploads a card and lets the alias mean it; returns `name@digest`."""
        data, digest = stores.file_of(card)
        await self.store.publish(data)
        request = cards_pb2.SetAliasRequest(name=card.name, alias=alias, digest=digest)
        async with self.store.stub() as stub:
            await rpc_client.call(stub.SetAlias, request)
        self.cards[f"{card.name}@{digest}"] = card
        return f"{card.name}@{digest}"

    def environment(self, cache: pathlib.Path) -> dict[str, str]:
        return {
            "SKILLMESH_STORE": self.store.flight_address,
            "SKILLMESH_BASE_FINGERPRINT": self.base.fingerprint,
            "SKILLMESH_VLLM_CACHE": str(cache),
            "SKILLMESH_VLLM_FOLLOW_S": "0.1",
        }

    def identity(self, name: str) -> str:
        """`name@digest` of the card that was published last by that name."""
        return [known for known in self.cards if known.startswith(f"{name}@")][-1]

    def expected(self, identity: str = "", tokens: int = TOKENS) -> list[int]:
        """What the project's own engine answers with a card, or without one."""
        lora = manager.LoRAManager(self.base.model)
        if identity:
            lora.apply_card(self.cards[identity], "card")
            lora.activate("card")
        try:
            return tiny_model.reference_ids(self.base, QUESTION, tokens)
        finally:
            if identity:
                lora.remove_card("card")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    store = Store(tmp_path_factory.mktemp("store"))
    base = bases.load(bases.EMBEDDED)
    made = Published(store, base, {})
    asyncio.run(made.publish(tiny_model.card_for(base, "first-skill", seed=1)))
    asyncio.run(made.publish(tiny_model.card_for(base, "second-skill", seed=2)))
    asyncio.run(
        made.publish(tiny_model.card_for(base, "foreign-skill", seed=3, fingerprint="e" * 64))
    )
    mixed = stores.card("bfloat16", base, name="mixed-skill", seed=4, kinds=EVERY_KIND)
    asyncio.run(made.publish(test_vllm_peft_folder.with_ranks(mixed, alpha=1.0)))
    yield made
    store.stop()


@pytest.fixture(scope="module")
def server(
    published: Published, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[vllm_server.VllmServer]:
    cache = tmp_path_factory.mktemp("cache")
    started = vllm_server.VllmServer(published.environment(cache))
    try:
        started.until(vllm_server.UP, vllm_server.UP_S)
        yield started
    finally:
        started.stop()


async def answer(
    server: vllm_server.VllmServer, name: str, tokens: int = TOKENS, **more: Any
) -> tuple[str, list[int]]:
    """Which card vLLM says has answered, and its answer's tokens without the end token."""
    async with server.client() as client:
        found = await client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=tokens,
            temperature=0,
            extra_body={"return_token_ids": True} | more,
        )
    ids: list[int] = found.choices[0].model_extra["token_ids"]  # type: ignore[index]
    if found.choices[0].finish_reason == "stop":
        ids.pop()
    return found.model.partition("#")[0], ids


async def refusal(server: vllm_server.VllmServer, name: str) -> int:
    """The status of the answer, which must be a refusal."""
    with pytest.raises(openai.APIStatusError) as found:
        await answer(server, name)
    return found.value.status_code


@pytest.fixture
def plugins(
    published: Published, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """`vllm.plugins`, as if no plugin were loaded yet, with the plugin's variables set."""
    import vllm.plugins
    from vllm.lora.resolver import LoRAResolverRegistry

    for variable, value in published.environment(tmp_path).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(vllm.plugins, "plugins_loaded", False)
    yield vllm.plugins
    for registered in LoRAResolverRegistry.resolvers.values():
        registered._follower.stop()
    LoRAResolverRegistry.resolvers.clear()


@pytest.mark.parametrize("selector", ["", "@latest", "@production", "@digest"])
async def test_vllm_accepts_request_and_folder_when_its_registry_resolves_a_card(
    plugins: Any, published: Published, selector: str
) -> None:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    plugins.load_general_plugins()
    found = LoRAResolverRegistry.get_resolver(skillmesh_vllm.RESOLVER_NAME)
    assert isinstance(found, LoRAResolver) and isinstance(found, resolver.CardResolver)
    identity = published.identity("first-skill")
    name = "first-skill" + selector.replace("digest", identity.partition("@")[2])
    request = await found.resolve_lora("any", name)
    assert isinstance(request, LoRARequest)
    assert request.lora_name.partition("#")[0] == identity
    config = PEFTHelper.from_local_dir(request.lora_path, max_position_embeddings=None)
    config.validate_legal(LoRAConfig(max_lora_rank=vllm_server.LARGEST_RANK))
    assert (config.r, config.vllm_lora_scaling_factor) == (2, 1.0)
    for refused in ("unknown-skill", "foreign-skill", *ESCAPING):
        assert await found.resolve_lora("any", refused) is None


def test_vllm_does_not_start_when_a_variable_is_wrong(
    plugins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILLMESH_BASE_FINGERPRINT", "none")
    with pytest.raises(ValueError, match="SKILLMESH_BASE_FINGERPRINT"):
        plugins.load_general_plugins()


async def test_vllm_answers_as_the_engine_does_when_it_serves_cards(
    published: Published, server: vllm_server.VllmServer
) -> None:
    plain = published.expected()
    assert await answer(server, vllm_server.MODEL) == (vllm_server.MODEL, plain)
    answers = [plain]
    for card in ("first-skill", "second-skill", "mixed-skill"):
        identity = published.identity(card)
        expected = published.expected(identity)
        for name in (card, f"{card}@production", identity):
            assert await answer(server, name) == (identity, expected)
        answers.append(expected)
    assert len({tuple(ids) for ids in answers}) == len(
        answers
    )  # Each card says something of its own.
    assert await answer(server, vllm_server.MODEL) == (vllm_server.MODEL, plain)


async def test_vllm_lists_names_that_can_be_asked_for_when_it_has_cards(
    published: Published, server: vllm_server.VllmServer
) -> None:
    identity = published.identity("first-skill")
    await answer(server, "first-skill")
    async with server.client() as client:
        listed = [model.id async for model in await client.models.list()]
    found = next(name for name in listed if name.startswith(identity))
    assert found != identity
    assert await answer(server, found) == (identity, published.expected(identity))


@pytest.mark.parametrize(
    "name", ["unknown-skill", "first-skill@unknown", "foreign-skill", *ESCAPING]
)
async def test_vllm_says_not_found_when_the_plugin_refuses(
    server: vllm_server.VllmServer, name: str
) -> None:
    assert await refusal(server, name) == http.HTTPStatus.NOT_FOUND
    if name == "foreign-skill":
        await asyncio.to_thread(server.until, "skill card foreign-skill is not served: it was made")


async def test_vllm_refuses_when_a_card_has_a_rank_above_its_own(
    published: Published, server: vllm_server.VllmServer
) -> None:
    card = tiny_model.card_for(published.base, "wide-skill", rank=vllm_server.LARGEST_RANK + 1)
    await published.publish(card)
    assert await refusal(server, "wide-skill") == http.HTTPStatus.BAD_REQUEST
    identity = published.identity("first-skill")
    assert await answer(server, "first-skill") == (identity, published.expected(identity))


async def test_both_names_answer_when_they_mean_one_card_and_are_asked_together(
    published: Published, server: vllm_server.VllmServer
) -> None:
    names = ("first-skill", "first-skill@production")
    # Each takes one of two places; the third pushes one of them out.
    for name in (*names, "second-skill"):
        await answer(server, name)
    asked = (answer(server, name, ignore_eos=True) for name in names * 2)
    identity = published.identity("first-skill")
    assert await asyncio.gather(*asked) == [(identity, published.expected(identity))] * 4


async def test_the_new_version_answers_and_what_is_under_way_keeps_the_old_when_the_alias_moved(
    published: Published, server: vllm_server.VllmServer
) -> None:
    def card(version: str, seed: int) -> cards.LoRACard:
        return tiny_model.card_for(published.base, "moving-skill", version, seed)

    name = "moving-skill@production"
    first = await published.publish(card("1.0.0", seed=5))
    assert await answer(server, name) == (first, published.expected(first))
    long = asyncio.create_task(answer(server, name, LONG, ignore_eos=True))
    await asyncio.to_thread(server.until_running, 1)
    second = await published.publish(card("1.1.0", seed=6))
    await asyncio.to_thread(server.until, f"Removed LoRA adapter: name '{name}'")
    assert not long.done()
    assert await answer(server, name) == (second, published.expected(second))
    assert await answer(server, first) == (first, published.expected(first))
    assert await long == (first, published.expected(first, LONG))
