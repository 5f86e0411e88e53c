"""`LoRAManager`: in and out of a model without a trace, and what it refuses."""

from __future__ import annotations

import logging

import pytest
import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.lora import linear, manager
from tests import fakes, tiny_model

PATHS = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(2)]


@pytest.fixture
def base():
    return tiny_model.tiny_base(0)


def _logits(base) -> torch.Tensor:
    with torch.no_grad():
        return base.model(torch.tensor([[1, 2, 3]])).logits


def _modules(base) -> dict[str, torch.nn.Module]:
    return dict(base.model.named_modules())


def _renamed(card: cards.LoRACard, names: dict[str, str]) -> cards.LoRACard:
    """The same card with other module paths."""
    return cards.LoRACard(card.manifest, {names.get(path, path): weights for path, weights in card})


def _q_card(base, **changes) -> cards.LoRACard:
    return tiny_model.card_for(base, kinds=("q_proj",), **changes)


def test_outputs_follow_the_formula_when_a_card_is_active(base):
    card = tiny_model.card_for(base)
    lora = manager.LoRAManager(base.model, base.fingerprint)
    lora.apply_card(card)
    lora.activate("tiny-skill")
    found = _logits(base)

    merged = tiny_model.tiny_base(0)
    with torch.no_grad():
        for path, weights in card:
            a = torch.frombuffer(bytearray(weights.lora_a), dtype=torch.float32)
            b = torch.frombuffer(bytearray(weights.lora_b), dtype=torch.float32)
            product = a.reshape(-1, weights.rank) @ b.reshape(weights.rank, -1)
            merged.model.get_submodule(path).weight += (product * weights.scale).T
    torch.testing.assert_close(found, _logits(merged), rtol=1e-3, atol=1e-3)


def test_model_is_the_very_same_when_all_cards_were_removed(base):
    before, logits = _modules(base), _logits(base)
    lora = manager.LoRAManager(base.model, base.fingerprint)
    lora.apply_card(tiny_model.card_for(base, seed=1), "one")
    lora.apply_card(_q_card(base, seed=2), "two")
    assert lora.list_cards() == ["one", "two"]
    assert torch.equal(_logits(base), logits), "no card is active yet"
    lora.activate("one")
    assert not torch.equal(_logits(base), logits)
    lora.remove_card("one")
    assert isinstance(base.model.get_submodule(PATHS[0]), linear.LoRALinear)
    assert (lora.active, lora.list_cards()) == (None, ["two"])
    assert torch.equal(_logits(base), logits)
    lora.remove_card("two")

    after = _modules(base)
    assert after.keys() == before.keys()
    assert all(after[path] is before[path] for path in before)
    assert torch.equal(_logits(base), logits)


def test_nothing_changes_but_a_warning_when_a_card_is_applied_twice(base, caplog):
    lora = manager.LoRAManager(base.model)
    lora.apply_card(_q_card(base, seed=1), "card")
    lora.activate("card")
    logits = _logits(base)
    with caplog.at_level(logging.WARNING):
        lora.apply_card(_q_card(base, seed=2), "card")
    assert "already applied" in caplog.text
    assert torch.equal(_logits(base), logits) and lora.list_cards() == ["card"]


def test_removal_is_silent_when_the_card_is_unknown(base, caplog):
    before = _modules(base)
    manager.LoRAManager(base.model).remove_card("nobody")
    assert not caplog.records and _modules(base) == before


def test_other_modules_go_on_when_one_is_not_in_the_model(base, caplog):
    card = _renamed(_q_card(base), {PATHS[0]: "model.layers.77.self_attn.q_proj"})
    lora = manager.LoRAManager(base.model)
    with caplog.at_level(logging.WARNING):
        lora.apply_card(card)
    assert "model.layers.77.self_attn.q_proj" in caplog.text
    assert isinstance(base.model.get_submodule(PATHS[1]), linear.LoRALinear)
    assert not isinstance(base.model.get_submodule(PATHS[0]), linear.LoRALinear)


def test_nothing_is_touched_when_the_last_shape_does_not_fit(base):
    good = _q_card(base)
    wrong = next(iter(fakes.tiny_card(modules=1)))[1]
    card = cards.LoRACard(good.manifest, {**good.modules, PATHS[1]: wrong})
    before = _modules(base)
    lora = manager.LoRAManager(base.model)
    with pytest.raises(errors.InvalidInputError, match=r"layers\.1\.self_attn\.q_proj.*\(8, 8\)"):
        lora.apply_card(card)
    assert _modules(base) == before and lora.list_cards() == []


def test_card_is_refused_when_none_of_its_modules_is_there(base):
    card = _renamed(_q_card(base), {path: f"other.{at}.q_proj" for at, path in enumerate(PATHS)})
    with pytest.raises(errors.InvalidInputError, match="none of its modules"):
        manager.LoRAManager(base.model).apply_card(card)


def test_card_is_refused_when_it_is_for_another_base(base):
    card = _q_card(base, fingerprint="0" * 64)
    before = _modules(base)
    with pytest.raises(errors.BaseModelMismatchError, match="tiny"):
        manager.LoRAManager(base.model, base.fingerprint).apply_card(card)
    assert _modules(base) == before
    manager.LoRAManager(base.model, None).apply_card(card)


@pytest.mark.parametrize(
    "spell",
    [
        lambda path: f"base_model.model.{path}",
        lambda path: path.removeprefix("model."),
        lambda path: f"base_model.model.model.{path.removeprefix('model.')}",
        lambda path: f"wrapper.{path.removeprefix('model.')}",
    ],
)
def test_module_is_found_when_its_prefix_differs(base, spell):
    card = _q_card(base)
    exact, spelled = manager.LoRAManager(base.model), tiny_model.tiny_base(0)
    exact.apply_card(card, "card")
    exact.activate("card")
    other = manager.LoRAManager(spelled.model)
    other.apply_card(_renamed(card, {path: spell(path) for path in PATHS}), "card")
    other.activate("card")
    assert torch.equal(_logits(base), _logits(spelled))


def test_card_is_refused_when_a_module_is_ambiguous(base):
    card = _renamed(_q_card(base), {PATHS[0]: "self_attn.q_proj"})
    before = _modules(base)
    with pytest.raises(errors.InvalidInputError, match="ambiguous"):
        manager.LoRAManager(base.model).apply_card(card)
    assert _modules(base) == before


def test_card_is_refused_when_two_modules_mean_one_layer(base):
    card = _renamed(_q_card(base), {PATHS[1]: f"base_model.{PATHS[0]}"})
    with pytest.raises(errors.InvalidInputError, match="two of its modules"):
        manager.LoRAManager(base.model).apply_card(card)


def test_activation_is_refused_when_the_card_is_not_resident(base):
    lora = manager.LoRAManager(base.model)
    with pytest.raises(errors.NotFoundError, match="nobody"):
        lora.activate("nobody")


def test_targets_are_listed_when_their_kind_is_known(base):
    lora = manager.LoRAManager(base.model)
    assert lora.target_paths(["q_proj"]) == PATHS
    with pytest.raises(errors.NotFoundError, match="k_prog"):
        lora.target_paths(["q_proj", "k_prog"])


def test_card_is_loaded_with_all_checks_when_a_file_is_given(base, tmp_path):
    path = tmp_path / "card.lora.arrow"
    digest = formats.LoRAFormat.save(_q_card(base), path)
    lora = manager.LoRAManager(base.model)
    assert lora.load_card(path, digest).modules.keys() == set(PATHS)
    with pytest.raises(errors.NotFoundError, match="missing"):
        lora.load_card(tmp_path / "missing.lora.arrow")
    with pytest.raises(errors.IntegrityError):
        lora.load_card(path, "0" * 64)


def test_trained_adapters_leave_without_a_trace_when_they_are_removed(base):
    before, logits = _modules(base), _logits(base)
    lora = manager.LoRAManager(base.model)
    made = lora.add_trainable("new", PATHS, 2, 2.0, torch.Generator().manual_seed(0))
    lora.activate("new")
    assert list(made) == PATHS and torch.equal(_logits(base), logits)
    with torch.no_grad():
        for adapter in made.values():
            adapter.lora_b += 1
    assert not torch.equal(_logits(base), logits)
    lora.remove_card("new")
    assert _modules(base) == before and torch.equal(_logits(base), logits)


def test_layers_have_their_own_ranks_and_one_scale_when_ranks_are_given_by_path(base):
    lora = manager.LoRAManager(base.model)
    ranks = {PATHS[0]: 2, PATHS[1]: 5, "model.layers.0.mlp.down_proj": 7}
    made = lora.add_trainable("new", PATHS, ranks, 0.3, torch.Generator().manual_seed(0))
    assert {path: adapter.rank for path, adapter in made.items()} == {PATHS[0]: 2, PATHS[1]: 5}
    assert [adapter.scale for adapter in made.values()] == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("rank", [0, 33, {PATHS[0]: 2, PATHS[1]: 33}, {PATHS[0]: 2}])
def test_the_layer_is_named_and_nothing_touched_when_its_rank_does_not_fit(base, rank):
    before = _modules(base)
    lora = manager.LoRAManager(base.model)
    with pytest.raises(errors.InvalidInputError, match=r"layers\.[01]\.self_attn\.q_proj"):
        lora.add_trainable("new", PATHS, rank, 2.0, torch.Generator())
    assert _modules(base) == before and lora.list_cards() == []
