"""A batch whose rows use different cards gives each row what it would get alone."""

from __future__ import annotations

import random

import pytest
import torch

from shared import errors
from shared.cards import card as cards
from shared.lora import linear, manager, tensors
from tests import tiny_model

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [40, 41, 42, 43], [5, 6, 7, 8]])


def with_rank(card: cards.LoRACard, rank: int, name: str) -> cards.LoRACard:
    """Another card of the same modules, of another rank and scale."""
    generator = torch.Generator().manual_seed(rank)
    modules = {}
    for path, weights in card:
        adapter = linear.Adapter(
            torch.randn(weights.in_features, rank, generator=generator),
            torch.randn(rank, weights.out_features, generator=generator),
            0.5,
        )
        modules[path] = tensors.weights_of(adapter, 0.5 * rank, "float32")
    return cards.LoRACard(card.manifest.model_copy(update={"name": name}), modules)


@pytest.fixture
def school() -> tuple[manager.LoRAManager, torch.nn.Module]:
    """Four cards: two of one layout, one of another rank, one of other modules."""
    base = tiny_model.tiny_base()
    lora = manager.LoRAManager(base.model, base.fingerprint)
    one = tiny_model.card_for(base, "one", seed=1)
    lora.apply_card(one)
    lora.apply_card(tiny_model.card_for(base, "two", seed=2))
    lora.apply_card(with_rank(one, 5, "wide"))
    lora.apply_card(tiny_model.card_for(base, "other", seed=4, kinds=("o_proj", "q_proj")))
    return lora, base.model


@torch.no_grad()
def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(ids).logits
    return found


def alone(
    lora: manager.LoRAManager, model: torch.nn.Module, keys: list[str | None]
) -> torch.Tensor:
    found = []
    for row, key in enumerate(keys):
        lora.activate(key)
        found.append(logits(model, IDS[row : row + 1]))
    return torch.cat(found)


@pytest.mark.parametrize(
    "keys",
    [
        ["one", "two", "one", "two"],
        ["one", None, "two", None],
        ["one", "wide", "two", "wide"],
        ["other", "one", None, "wide"],
        ["two", "two", "two", "two"],
        [None, None, None, None],
    ],
    ids=str,
)
def test_each_row_is_as_alone_when_cards_are_mixed(
    school: tuple[manager.LoRAManager, torch.nn.Module], keys: list[str | None]
) -> None:
    lora, model = school
    expected = alone(lora, model, keys)
    lora.activate_rows(keys)
    torch.testing.assert_close(logits(model, IDS), expected, rtol=1e-4, atol=1e-4)


def test_each_row_is_as_alone_when_rows_come_and_go(
    school: tuple[manager.LoRAManager, torch.nn.Module],
) -> None:
    lora, model = school
    rng = random.Random(3)
    for _ in range(30):
        keys = rng.choices(["one", "two", "wide", "other", None], k=rng.randint(1, 4))
        expected = alone(lora, model, keys)
        lora.activate_rows(keys)
        torch.testing.assert_close(logits(model, IDS[: len(keys)]), expected, rtol=1e-4, atol=1e-4)


def test_no_row_keeps_old_weights_when_a_slot_is_used_again(
    school: tuple[manager.LoRAManager, torch.nn.Module],
) -> None:
    lora, model = school
    lora.activate_rows(["one", "two", "one", "two"])
    lora.remove_card("two")
    lora.apply_card(tiny_model.card_for(tiny_model.tiny_base(), "three", seed=3))
    keys: list[str | None] = ["one", "three", "one", "three"]
    expected = alone(lora, model, keys)
    lora.activate_rows(keys)
    torch.testing.assert_close(logits(model, IDS), expected, rtol=1e-4, atol=1e-4)


def test_bare_rows_are_bit_identical_when_no_row_has_a_card(
    school: tuple[manager.LoRAManager, torch.nn.Module],
) -> None:
    lora, model = school
    bare = logits(tiny_model.tiny_base().model, IDS)
    lora.activate_rows([None, "one", None, None])
    lora.activate_rows([None] * 4)
    assert torch.equal(logits(model, IDS), bare)


def test_nothing_changes_when_a_row_names_a_card_that_is_not_resident(
    school: tuple[manager.LoRAManager, torch.nn.Module],
) -> None:
    lora, model = school
    lora.activate("one")
    before = logits(model, IDS)
    with pytest.raises(errors.NotFoundError, match="nobody"):
        lora.activate_rows(["one", "nobody"])
    assert lora.active == "one" and torch.equal(logits(model, IDS), before)
    with pytest.raises(errors.InvalidInputError, match="at least one row"):
        lora.activate_rows([])


def test_a_card_holds_hardly_more_memory_than_its_file(
    school: tuple[manager.LoRAManager, torch.nn.Module],
) -> None:
    lora, _ = school
    card = tiny_model.card_for(tiny_model.tiny_base(), "one", seed=1)
    assert lora.size_bytes("one") == card.size_bytes


def test_memory_of_mixed_rows_is_free_when_the_last_card_leaves(
    school: tuple[manager.LoRAManager, torch.nn.Module],
) -> None:
    lora, _ = school
    lora.activate_rows(["one", "two", "wide", None])
    for key in lora.list_cards():
        assert lora._mixer._flat_B_S.numel() > 0
        lora.remove_card(key)
    assert lora._mixer._flat_B_S.numel() == 0


def test_rows_mix_again_when_there_was_no_memory_once(
    school: tuple[manager.LoRAManager, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    lora, model = school
    keys: list[str | None] = ["one", "two", "one", "two"]
    expected = alone(lora, model, keys)
    lora.activate_rows(["one", "two"])

    def full(*_: object, **__: object) -> torch.Tensor:
        raise MemoryError("no memory for rows")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", full)
        with pytest.raises(MemoryError):
            lora.activate_rows(keys)
    lora.activate_rows(keys)
    torch.testing.assert_close(logits(model, IDS), expected, rtol=1e-4, atol=1e-4)
