"""What holds for every card, by the names that the specification gives these properties.

Format round trip, forward correctness, injection idempotence, removal restoration, routing
consistency; and that a merge adds what its cards add.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router import decision as decisions
from services.router import practice, router
from shared.cards import card as cards
from shared.cards import format as formats
from shared.lora import algebra, linear, manager, tensors
from tests import fake_router_peers, fake_routers, fakes

SIDES = (6, 5)
"""Of the model's hidden vectors and of what its first layer makes of them."""
KINDS = ("q_proj", "v_proj")
THINGS = ("the Skarnholm lighthouse", "the Tarnvik viaduct", "the Brunwick aqueduct")


def model() -> torch.nn.Module:
    """Two layers, one after the other, always with the same weights."""
    generator = torch.Generator().manual_seed(0)
    layers = collections.OrderedDict(
        q_proj=torch.nn.Linear(*SIDES), v_proj=torch.nn.Linear(*SIDES[::-1])
    )
    for layer in layers.values():
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, generator=generator).requires_grad_(False)
    return torch.nn.Sequential(layers)


def made(name: str, seed: int, ranks: dict[str, int], alpha: float) -> cards.LoRACard:
    """A card with random weights for some of the model's layers."""
    generator = torch.Generator().manual_seed(seed)
    layers = dict(model().named_children())
    modules = {}
    for path, rank in ranks.items():
        layer = layers[path]
        assert isinstance(layer, torch.nn.Linear)
        adapter = linear.Adapter(
            torch.randn(layer.in_features, rank, generator=generator),
            torch.randn(rank, layer.out_features, generator=generator),
            alpha / rank,
        )
        modules[path] = tensors.weights_of(adapter, alpha, "float32")
    manifest = fakes.tiny_card(name).manifest.model_copy(update={"target_modules": KINDS})
    return cards.LoRACard(manifest, modules)


RANKS = st.dictionaries(st.sampled_from(KINDS), st.integers(1, min(SIDES)), min_size=1)
CARDS = st.lists(
    st.tuples(st.integers(0, 1000), RANKS, st.floats(0.1, 8.0)), min_size=1, max_size=4
).map(lambda drawn: [made(f"card-{at}", *fields) for at, fields in enumerate(drawn)])


def delta(weights: cards.ModuleWeights) -> torch.Tensor:
    """A·B·scale of a module in float64, (in_features, out_features)."""
    adapter = tensors.adapter_of(weights, torch.float64)
    return adapter.lora_a @ adapter.lora_b * adapter.scale


def formula(x_B_T_I: torch.Tensor, rows: Sequence[cards.LoRACard | None]) -> torch.Tensor:
    """`x @ (W + A·B·scale)` and the bias, layer by layer in float64, a row at a time."""
    found = []
    for x_T_I, card in zip(x_B_T_I.double(), rows, strict=True):
        for path, layer in model().double().named_children():
            assert isinstance(layer, torch.nn.Linear)
            weight_I_O = layer.weight.T
            if card is not None and path in card.modules:
                weight_I_O = weight_I_O + delta(card.modules[path])
            x_T_I = x_T_I @ weight_I_O + layer.bias
        found.append(x_T_I)
    return torch.stack(found)


def inputs(rows: int, seed: int = 0) -> torch.Tensor:
    """(rows, 3, features), float32."""
    return torch.randn(rows, 3, SIDES[0], generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(
    dtype=st.sampled_from(sorted(fakes.BITS)),
    shapes=st.lists(
        st.tuples(st.integers(1, 3), st.integers(3, 20), st.integers(3, 20)), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**32),
)
def test_format_round_trip_keeps_every_bit(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shapes: list[tuple[int, int, int]],
    seed: int,
) -> None:
    modules = {
        f"layers.{at}.q_proj": fakes.any_weights(dtype, *shape, seed)
        for at, shape in enumerate(shapes)
    }
    card = cards.LoRACard(fakes.tiny_card().manifest, modules)
    path = tmp_path_factory.mktemp("round-trip") / "card.lora.arrow"
    digest = formats.LoRAFormat.save(card, path)
    for found in (
        formats.LoRAFormat.load(path, digest),
        formats.LoRAFormat.from_bytes(path.read_bytes()),
    ):
        assert list(found.modules.items()) == list(card.modules.items())
        assert found.manifest == card.manifest
        assert formats.LoRAFormat.to_bytes(found) == path.read_bytes()


@settings(deadline=None)
@given(held=CARDS, data=st.data(), seed=st.integers(0, 1000))
def test_forward_correctness_is_that_of_the_merged_weight_for_every_row(
    held: list[cards.LoRACard], data: st.DataObject, seed: int
) -> None:
    rows = data.draw(st.lists(st.sampled_from([None, *held]), min_size=1, max_size=5))
    served = model()
    lora = manager.LoRAManager(served)
    for card in held:
        lora.apply_card(card)
    lora.activate_rows([card and card.name for card in rows])
    x_B_T_I = inputs(len(rows), seed)
    expected = formula(x_B_T_I, rows).float()
    torch.testing.assert_close(served(x_B_T_I), expected, rtol=1e-4, atol=1e-3)


@settings(deadline=None)
@given(held=CARDS, data=st.data())
def test_injection_idempotence_whatever_is_applied_again(
    held: list[cards.LoRACard], data: st.DataObject
) -> None:
    # Under a name that is taken another card changes nothing, either.
    pairs = st.tuples(st.sampled_from(held), st.sampled_from([card.name for card in held]))
    again = data.draw(st.lists(pairs, max_size=8))
    active = data.draw(st.sampled_from(held)).name
    once, often = model(), model()
    managers = manager.LoRAManager(once), manager.LoRAManager(often)
    for lora in managers:
        for card in held:
            lora.apply_card(card)
        lora.activate(active)
    modules = dict(often.named_modules())
    for card, name in again:
        managers[1].apply_card(card, name)
    assert managers[1].list_cards() == [card.name for card in held]
    assert managers[1].active == active
    after = dict(often.named_modules())
    assert after.keys() == modules.keys(), "no layer is wrapped twice"
    assert all(after[path] is modules[path] for path in modules)
    assert torch.equal(often(inputs(2)), once(inputs(2)))
    # What was applied several times is gone after one removal.
    for card in held:
        managers[1].remove_card(card.name)
    assert managers[1].list_cards() == []
    assert all(type(layer) is torch.nn.Linear for layer in often.children())


@settings(deadline=None)
@given(held=CARDS, data=st.data())
def test_removal_restoration_whatever_came_and_went_before(
    held: list[cards.LoRACard], data: st.DataObject
) -> None:
    served = model()
    before, bare = dict(served.named_modules()), served(inputs(2))
    lora = manager.LoRAManager(served)
    resident: dict[str, cards.LoRACard] = {}
    steps = st.tuples(st.sampled_from(["apply", "activate", "rows", "remove"]), st.integers(0, 3))
    for step, number in data.draw(st.lists(steps, max_size=12)):
        card = held[number % len(held)]
        if step == "apply":
            lora.apply_card(card)
            resident[card.name] = card
        elif step == "remove":
            lora.remove_card(card.name)
            resident.pop(card.name, None)
        elif card.name in resident:
            if step == "activate":
                lora.activate(card.name)
            else:
                lora.activate_rows([card.name, None])
    # Who stays is as before.
    for card in resident.values():
        lora.activate(card.name)
        expected = formula(inputs(2), [card, card]).float()
        torch.testing.assert_close(served(inputs(2)), expected, rtol=1e-4, atol=1e-3)
    for name in data.draw(st.permutations(list(resident))):
        lora.remove_card(name)
    after = dict(served.named_modules())
    assert after.keys() == before.keys()
    assert all(after[path] is before[path] for path in before), "the very same layers"
    assert torch.equal(served(inputs(2)), bare)


@pytest.fixture(scope="module")
def ground() -> practice.Practice:
    return fake_routers.ground()


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_routing_consistency_whatever_the_order_of_registration(
    ground: practice.Practice, data: st.DataObject
) -> None:
    # Two cards about one thing: a tie that no order may decide.
    known = [
        fake_routers.card_about(f"card-{at}", thing)
        for at, thing in enumerate((*THINGS, THINGS[0]))
    ]
    held = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    other = data.draw(st.permutations(held))
    outdated = data.draw(st.lists(st.sampled_from(held), max_size=2, unique=True))
    at_once = data.draw(st.booleans())
    wordings = [text for thing in THINGS for text in fake_router_peers.about(thing)]
    query = data.draw(st.sampled_from([*wordings, "Which height has Skarnholm?", "Why is it so?"]))

    async def decided() -> list[decisions.Decision]:
        first, second = fake_routers.lora_router(ground), fake_routers.lora_router(ground)
        for card in held:
            await first.register_card(card)
        for card in outdated:
            await second.register_card(fake_routers.card_about(card.name, "a ferry", "0"))
        for part in [other] if at_once else [[card] for card in other]:
            await second.register_cards(part)
        return [await _decision(one, query) for one in (first, second)]

    first, second = asyncio.run(decided())
    assert first == second
    assert len(first.candidates) in (0, len(held))


async def _decision(one: router.LoRARouter, query: str) -> decisions.Decision:
    await one.settled()
    try:
        return await one.select(query, top_k=10)
    finally:
        await one.close()


@settings(deadline=None)
@given(held=CARDS, data=st.data())
def test_merge_correctness_is_the_weighted_sum_of_what_the_cards_add(
    held: list[cards.LoRACard], data: st.DataObject
) -> None:
    some = st.lists(st.floats(-2, 2), min_size=len(held), max_size=len(held))
    shares = tuple(data.draw(some))
    merged = algebra.merge(held, algebra.Recipe(weights=shares))
    for path, weights in merged.modules.items():
        parts = [card.modules.get(path) for card in held]
        expected = sum(
            share * delta(part) for share, part in zip(shares, parts, strict=True) if part
        )
        assert isinstance(expected, torch.Tensor)
        torch.testing.assert_close(delta(weights), expected, rtol=1e-5, atol=1e-4)
        ranks = sum(part.rank for part in parts if part)
        assert weights.rank == min(ranks, *SIDES)
